from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import pytest

from sam2_blocks.language.items import item_problems
from sam2_blocks.testing import check_block
from sam2_blocks.values import Image


class Item(Protocol):
    image: Image
    path: str
    format: Literal["auto", "json", "coco", "yolo"]
    classes: list[str]
    classes_file: str
    reference: str
    columns: Literal["auto", "box"]
    crowds: str
    boxes_frame: str
    on_bad_entry: Literal["error", "skip"]
    missing: Literal["error", "empty"]


class Good:
    def run(self, items: Sequence[Item]) -> Sequence[Any]: ...


class Untyped:
    def run(self, items: Sequence[Any]) -> Sequence[Any]: ...


def problems(block, plugins):
    return list(item_problems(block, plugins.manifests["detections/load@v1"]))


def test_what_agrees_and_what_says_nothing_have_no_problems(plugins):
    assert problems(Good, plugins) == problems(Untyped, plugins) == []


@pytest.mark.parametrize(
    ("name", "annotation", "message"),
    [
        (
            "pth",
            str,
            "Changed.pth: the manifest has no such input or parameter. Did you mean 'path'",
        ),
        ("path", int, "Changed.path: the manifest says string, the annotation <class 'int'>"),
        ("path", "str | None", "Changed.path: is never None in the manifest"),
        ("format", Literal[1, 2], "Changed.format: the manifest says string"),
        ("path", Any, ""),
    ],
)
def test_differences_are_named(plugins, name, annotation, message):
    changed = type("Changed", (Item, Protocol), {"__annotations__": {name: annotation}})

    class Block:
        def run(self, items: Sequence[Any]) -> Sequence[Any]: ...

    Block.run.__annotations__["items"] = Sequence[changed]
    found = problems(Block, plugins)
    assert message in "; ".join(found)
    assert bool(found) == bool(message)


def test_what_the_manifest_gives_is_declared(plugins):
    class Short(Protocol):
        image: Image

    class Block:
        def run(self, items: Sequence[Any]) -> Sequence[Any]: ...

    Block.run.__annotations__["items"] = Sequence[Short]
    assert "Short lacks 'path', which the manifest gives every item" in problems(Block, plugins)


def test_check_block_compares(plugins, monkeypatch):
    import sam2_blocks.blocks.load_detections as module

    monkeypatch.setattr(module.LoadDetections.run, "__annotations__", {"items": Sequence[Item]})
    monkeypatch.delitem(Item.__annotations__, "missing")
    with pytest.raises(AssertionError, match="detections/load@v1: Item lacks 'missing'"):
        check_block("detections/load@v1", plugins=plugins)

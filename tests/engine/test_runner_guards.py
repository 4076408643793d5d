"""Code of others that leaves in other ways than by an `Exception`, at every place it is called."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from sam2_blocks import Item, Kind, Runner, load_pipeline
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ForeignError, SourceError
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.testing import FakeExecutor, sample_image
from tests.engine.conftest import Double


class _MuteError(Exception):
    def __str__(self):
        raise SystemExit("not even this")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (asyncio.CancelledError(), "CancelledError: CancelledError"),
        (GeneratorExit("out"), "GeneratorExit: out"),
        (_MuteError(), "_MuteError"),
    ],
)
@pytest.mark.parametrize("returned", [False, True])
def test_whatever_a_block_raises_is_the_items_error(
    doubling, monkeypatch, raised, message, returned
):
    def double(self, item):
        if item.number != 5:
            return {"number": 1}
        if returned:
            return raised
        raise raised

    monkeypatch.setattr(Double, "double", double)
    good, bad = doubling.run([1, 5])
    assert not good.errors
    assert bad.errors[0].message == message


def test_an_interrupt_in_a_block_stays_one(doubling, monkeypatch):
    def interrupt(self, item):
        raise KeyboardInterrupt

    monkeypatch.setattr(Double, "double", interrupt)
    with pytest.raises(KeyboardInterrupt):
        doubling.run([1])


@pytest.mark.parametrize("part", ["check", "parse"])
def test_a_kind_that_leaves_fails_its_item(plugins, part):
    def leave(value):
        if value == "bad":
            raise SystemExit(part)
        if part == "parse":
            raise TypeError("parse it")

    plugins.kinds["odd"] = Kind("odd", "", leave, leave if part == "parse" else None)
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "odd": {"kind": "odd"}},
        "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
        "outputs": {"embedding": "$steps.embed.embedding"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    resources = Resources({"sam2": FakeExecutor})
    with Runner(pipeline, plugins, resources=resources) as runner:
        [result] = runner.run([Item("a", {"image": sample_image(), "odd": "bad"})])
    assert result.errors[0].message == f"input 'odd': SystemExit: {part}"


class _LateSequence:
    """As many results as there are items, none of which can be read."""

    def __init__(self, items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, place):
        if self._items[place].number == 5:
            raise SystemExit(0)
        return {"number": 1}


def test_results_that_fail_when_they_are_read_are_their_items_error(doubling, monkeypatch):
    monkeypatch.setattr(Double, "run", lambda self, items: _LateSequence(items))
    good, bad = doubling.run([1, 5])
    assert good.outputs["four"] == 1
    assert bad.errors[0].message == "SystemExit: 0"


class _EvasiveFloat(float):
    def __ge__(self, other):
        raise SystemExit(0)


def test_a_value_that_leaves_when_a_condition_asks_fails_its_item(plugins):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "x": {"kind": "float"}},
        "steps": {
            "embed": {
                "use": "sam2/embed@v1",
                "with": {"image": "$inputs.image"},
                "when": {"value": "$inputs.x", "is": "at_least", "to": 1},
            }
        },
        "outputs": {"embedding": "$steps.embed.embedding"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    items = [Item(name, {"image": sample_image(), "x": x}) for name, x in _EVASIVE.items()]
    with Runner(pipeline, plugins, resources=Resources({"sam2": FakeExecutor})) as runner:
        bad, good = runner.run(items)
    assert bad.errors[0].message == "SystemExit: 0"
    assert not good.errors


_EVASIVE = {"bad": _EvasiveFloat(2), "good": 2.0}


@pytest.mark.parametrize("raised", [SystemExit(0), GeneratorExit(), asyncio.CancelledError()])
def test_items_that_leave_end_the_run_with_an_error(doubling, raised):
    def items():
        yield Item("a", {"x": 1})
        raise raised

    with (
        pytest.raises(SourceError, match=f"item 2, after 'a', .*{type(raised).__name__}"),
        Runner(doubling.pipeline, doubling.plugins) as runner,
    ):
        list(runner.run(items()))


def test_a_finish_that_cannot_be_looked_up_is_an_error(doubling, monkeypatch):
    def leave(self):
        raise SystemExit(0)

    monkeypatch.setattr(Double, "finish", property(leave))
    with pytest.raises(ForeignError, match="SystemExit: 0"):
        doubling.run([1])


def test_a_block_that_is_made_only_to_finish_may_fail_in_any_way(doubling, monkeypatch, tmp_path):
    def leave(self, resources):
        raise SystemExit(0)

    monkeypatch.setattr(Double, "__init__", leave)
    steps = [
        replace(s, manifest=s.manifest.model_copy(update={"file_access": "write"}))
        for s in doubling.pipeline.steps
    ]
    pipeline = replace(doubling.pipeline, steps=tuple(steps))
    resources = Resources({}, files=OutputFiles(tmp_path, kept={"a": ()}))
    with (
        pytest.raises(ForeignError, match="SystemExit: 0"),
        Runner(pipeline, doubling.plugins, resources=resources) as runner,
    ):
        list(runner.run([]))


def test_a_thread_that_is_interrupted_while_it_starts_has_no_work(doubling, monkeypatch):
    """Nobody would wait for it, and it would write when all files are closed."""
    start = threading.Thread.start

    def interrupted(self):
        start(self)
        if self.name.startswith("sam2-blocks-follower"):
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        doubling.run([1, 2, 3])
    assert Double.batches == []

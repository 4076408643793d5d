"""Published blocks keep their sockets: ``tests/sockets.json`` holds what pipelines rely on."""

from __future__ import annotations

import copy
import json

import pytest

from tools.sockets import SNAPSHOT, all_sockets, find_breaks

FROZEN = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
BLOCK = "sam2/segment@v1"


def test_no_block_has_changed_what_pipelines_rely_on(plugins):
    """Until the first released tag: run ``python -m tools.sockets`` in the commit that changes it.

    After: optional parameters whose default keeps the old result; anything else is a new version.
    """
    assert list(find_breaks(FROZEN, all_sockets(plugins.manifests.values()))) == []


def test_the_snapshot_knows_what_was_added(plugins):
    now = all_sockets(plugins.manifests.values())
    assert json.loads(json.dumps(now)) == FROZEN, "run: python -m tools.sockets"


@pytest.fixture
def changed():
    return copy.deepcopy(FROZEN)


def test_an_optional_parameter_may_be_added(changed):
    new = {"type": "number", "default": 0, "required": False, "unit": None}
    changed[BLOCK]["params"]["blur"] = new
    assert list(find_breaks(FROZEN, changed)) == []


def test_a_new_block_breaks_nothing(changed):
    changed["sam2/segment@v2"] = changed[BLOCK]
    assert list(find_breaks(FROZEN, changed)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: block["params"].pop("model"), "params.model is gone"),
        (lambda block: block["inputs"].pop("boxes"), "inputs.boxes is gone"),
        (lambda block: block["outputs"].pop("predictions"), "outputs.predictions is gone"),
        (lambda block: block["params"]["model"].update(default="x"), "params.model was "),
        (lambda block: block["inputs"]["image"].update(kinds=["x"]), "inputs.image was "),
        (
            lambda block: block["params"].update(blur={"required": True}),
            "params.blur is new and has no default",
        ),
        (
            lambda block: block["inputs"].update(blur={"required": True}),
            "inputs.blur is new and required",
        ),
        (lambda block: block.update(file_access="write"), "file_access was none, is write"),
    ],
)
def test_what_breaks_a_pipeline_is_named(changed, change, message):
    change(changed[BLOCK])
    [found] = find_breaks(FROZEN, changed)
    assert found.startswith(f"{BLOCK}: {message}")


def test_a_block_may_not_go_away(changed):
    del changed[BLOCK]
    assert list(find_breaks(FROZEN, changed)) == [f"{BLOCK}: the block is gone"]

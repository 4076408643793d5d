"""Conditions, loops and joins as the runner sees them, with blocks of numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sam2_blocks import Item, Runner, hookimpl, load_pipeline, read_image
from sam2_blocks.engine.flow import Plan, Progress
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.trace import TraceRecorder
from sam2_blocks.errors import PipelineError
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.language.selectors import StepRef
from sam2_blocks.testing import FakeExecutor, run_block
from tests.conftest import PICTURES
from tests.engine.conftest import MANIFEST, Double

COUNT_TO = """\
manifest_version: 1
id: test/count_to@v1
title: Count
summary: Lists the numbers below one.
entry: tests.engine.test_flow:CountTo
inputs: {number: {kind: integer, required: true}}
outputs: {numbers: {kind: list of float}}
"""


class CountTo:
    """Gives 0, 1, … below a number; a negative one fails."""

    def __init__(self, resources):
        pass

    def run(self, items):
        return [
            {"numbers": [float(n) for n in range(item.number)]}
            if item.number >= 0
            else ValueError("below zero")
            for item in items
        ]


@pytest.fixture
def flow(plugins):
    """Run steps on items: ``flow(steps, outputs, [{input: value}, …], **runner_options)``."""
    Double.made = Double.finished = 0
    Double.batches = []
    for text in (MANIFEST, COUNT_TO):
        manifest = load_manifest(text, "m.yaml", plugins.kinds)
        plugins.manifests[manifest.id] = manifest

    def run(steps, outputs, given, **options):
        document = {
            "pipeline_version": 1,
            "inputs": {
                "n": {"kind": "integer", "default": 0},
                "x": {"kind": "float", "default": 1},
                "name": {"kind": "string", "default": "cat"},
                "list": {"kind": "list of float", "default": []},
                "any": {"kind": "*", "default": None},
                "boxes": {"kind": "object_detection_prediction", "default": []},
            },
            "steps": steps,
            "outputs": outputs,
        }
        pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
        items = [Item(str(index), inputs) for index, inputs in enumerate(given)]
        with Runner(pipeline, plugins, **options) as runner:
            return list(runner.run(items))

    run.plugins = plugins
    return run


def double(value, **more):
    return {"use": "test/double@v1", "with": {"number": value}, **more}


def when(value, operator, *to):
    return {"value": value, "is": operator, **({"to": to[0]} if to else {})}


ONE_TO_THREE = {"all": [when("$inputs.n", "at_least", 1), when("$inputs.n", "at_most", 3)]}
ONE_OR_FOUR = {"any": [when("$inputs.n", "equals", 1), when("$inputs.n", "equals", 4)]}


# --- when -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "given", "runs"),
    [
        (when("$inputs.boxes", "not_empty"), {"boxes": []}, False),
        (when("$inputs.boxes", "not_empty"), {"boxes": [[0, 0, 1, 1]]}, True),
        (when("$inputs.boxes", "empty"), {"boxes": []}, True),
        (when("$inputs.boxes", "at_least", 2), {"boxes": [[0, 0, 1, 1]]}, False),
        (when("$inputs.boxes", "equals", 1), {"boxes": [[0, 0, 1, 1]]}, True),
        (when("$inputs.list", "at_most", 2), {"list": [1.0, 2.0]}, True),
        (when("$inputs.n", "at_least", 3), {"n": 2}, False),
        (when("$inputs.n", "at_least", "$inputs.x"), {"n": 2, "x": 2}, True),
        (when("$inputs.n", "in", [1, 2]), {"n": 2}, True),
        (when("$inputs.n", "equals", 1), {"n": 1}, True),
        (when("$inputs.name", "in", ["dog", "cow"]), {"name": "cat"}, False),
        (when("$inputs.name", "equals", "cat"), {"name": "cat"}, True),
        (when("$inputs.name", "not_empty"), {"name": ""}, False),
        (when("$inputs.any", "not_empty"), {}, False),
        ({"not": when("$inputs.n", "equals", 1)}, {"n": 1}, False),
        (
            ONE_TO_THREE,
            {"n": 2},
            True,
        ),
        (
            ONE_TO_THREE,
            {"n": 4},
            False,
        ),
        (ONE_OR_FOUR, {"n": 4}, True),
        (
            ONE_OR_FOUR,
            {"n": 2},
            False,
        ),
    ],
)
def test_a_step_runs_where_its_condition_holds(flow, condition, given, runs):
    [result] = flow({"d": double("$inputs.x", when=condition)}, {"y": "$steps.d.number"}, [given])
    assert not result.errors
    assert bool(result.outputs) == runs
    assert len(result.skipped) == (not runs)


def test_what_needs_a_skipped_step_is_skipped_with_the_reason(flow):
    steps = {
        "a": double("$inputs.x", when=when("$inputs.n", "at_least", 1)),
        "b": double("$steps.a.number"),
        "c": double("$inputs.x", when=when("$steps.b.number", "at_least", 0)),
    }
    outputs = {"b": "$steps.b.number", "c": "$steps.c.number", "x": "$inputs.x"}
    skipping, running = flow(steps, outputs, [{"n": 0}, {"n": 1}])
    assert skipping.outputs == {"x": 1}
    assert not skipping.errors
    assert [(one.step, one.reason) for one in skipping.skipped] == [
        ("a", "'when' does not hold: $inputs.n is at_least 1"),
        ("b", "it needs $steps.a.number, and step 'a' was skipped"),
        ("c", "it needs $steps.b.number, and step 'b' was skipped"),
    ]
    assert running.outputs == {"b": 4, "c": 2, "x": 1}
    assert running.skipped == ()


def test_a_default_stands_in_for_what_was_skipped_and_not_for_what_failed(flow):
    steps = {"a": double("$inputs.x", when=when("$inputs.n", "equals", 0))}
    outputs = {"y": {"value": "$steps.a.number", "default": -1}}
    made, skipped, failed = flow(steps, outputs, [{}, {"n": 1}, {"x": 7}])
    assert (made.outputs, skipped.outputs) == ({"y": 2}, {"y": -1})
    assert failed.outputs == {}
    assert failed.errors[0].message == "7 is refused"


def test_an_empty_default_is_detections_without_rows(flow):
    steps = {
        "keep": {
            "use": "detections/filter@v1",
            "with": {"detections": "$inputs.boxes"},
            "when": when("$inputs.n", "equals", 1),
        }
    }
    outputs = {"found": {"value": "$steps.keep.detections", "default": "empty"}}
    [result] = flow(steps, outputs, [{"boxes": [[0, 0, 1, 1]]}])
    assert len(result.outputs["found"]) == 0
    assert list(result.outputs["found"].data) == ["class_name"]


FIRST = {
    "a": double("$inputs.x", when=when("$inputs.n", "equals", 1)),
    "b": double(100, when=when("$inputs.n", "equals", 2)),
    "y": {"use": "flow/first@v1", "with": {"values": ["$steps.a.number", "$steps.b.number"]}},
}


def test_first_joins_branches(flow):
    a, b, neither = flow(FIRST, {"y": "$steps.y.value"}, [{"n": 1}, {"n": 2}, {"n": 3}])
    assert (a.outputs, b.outputs, neither.outputs) == ({"y": 2}, {"y": 100}, {})
    assert neither.skipped[-1].reason == "none of $steps.a.number, $steps.b.number is there"


def test_first_covers_up_no_error(flow):
    [result] = flow(FIRST, {"y": "$steps.y.value"}, [{"n": 1, "x": 7}])
    assert result.outputs == {}
    assert [error.step for error in result.errors] == ["a"]


def test_a_value_of_any_kind_that_cannot_be_compared_fails_its_item(flow):
    steps = {"a": double("$inputs.x", when=when("$inputs.any", "at_least", 1))}
    bad, good = flow(steps, {"y": "$steps.a.number"}, [{"any": "text"}, {"any": 2}])
    assert "$inputs.any is at_least 1 cannot be asked of a str" in bad.errors[0].message
    assert good.outputs == {"y": 2}


def test_a_condition_that_always_holds_changes_nothing(flow):
    def run(**more):
        steps = {"a": double("$inputs.x", **more), "b": double("$steps.a.number", **more)}
        return flow(steps, {"y": "$steps.b.number"}, [{"x": n} for n in range(20)])

    assert run(when=when("$inputs.n", "at_most", 0)) == run()


# --- for_each ---------------------------------------------------------------------------------

LOOP = {
    "list": {"use": "test/count_to@v1", "with": {"number": "$inputs.n"}},
    "each": double("$each", for_each="$steps.list.numbers"),
}
EACH_OUT = {"doubled": "$steps.each.number"}


def test_elements_of_all_items_reach_the_block_as_one_batch(flow):
    results = flow(LOOP, EACH_OUT, [{"n": 3}, {"n": 0}, {"n": 2}])
    assert [result.outputs["doubled"] for result in results] == [[0, 2, 4], [], [0, 2]]
    assert Double.batches == [[0, 1, 2, 0, 1]]


def test_a_batch_is_bounded_by_elements(flow):
    flow(LOOP, EACH_OUT, [{"n": 3}, {"n": 4}], elements=2)
    assert Double.batches == [[0, 1], [2, 0], [1, 2], [3]]


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("elements", [1, 3, 64])
def test_for_each_equals_as_many_runs(flow, batch_size, elements):
    counts = [0, 5, 1, 7]
    options = {"batch_size": batch_size, "elements": elements}
    looped = flow(LOOP, EACH_OUT, [{"n": n} for n in counts], **options)
    alone = flow({"d": double("$inputs.x")}, {"y": "$steps.d.number"}, [{"x": n} for n in range(7)])
    single = [result.outputs["y"] for result in alone]
    assert [result.outputs["doubled"] for result in looped] == [single[:n] for n in counts]


def test_a_failing_element_is_a_record_with_its_index(flow):
    steps = {**LOOP, "after": double(1, when=when("$steps.each.number", "not_empty"))}
    bad, good = flow(steps, {**EACH_OUT, "after": "$steps.after.number"}, [{"n": 9}, {"n": 3}])
    assert [(e.step, e.index, e.message) for e in bad.errors] == [
        ("each", 7, "7 is refused"),
        ("each", 8, "the block's output 'number' is wrong: float: wants float or int, got str"),
    ]
    assert bad.outputs == {}
    assert good.outputs == {"doubled": [0, 2, 4], "after": 2}


def test_a_failing_element_may_be_dropped_with_what_it_belongs_to(flow):
    steps = {**LOOP, "each": double("$each", for_each="$steps.list.numbers", on_error="drop")}
    outputs = {**EACH_OUT, "of": "$steps.each.each"}
    [result] = flow(steps, outputs, [{"n": 9}])
    assert not result.errors
    assert result.outputs == {"doubled": [0, 2, 4, 6, 8, 10, 12], "of": [0, 1, 2, 3, 4, 5, 6]}
    assert [one.index for one in result.skipped] == [7, 8]
    assert result.skipped[0].reason == "dropped: ValueError: 7 is refused"


def test_index_is_the_number_of_the_element(flow):
    count = {"use": "test/count_to@v1", "with": {"number": "$index"}, "for_each": "$inputs.list"}
    [result] = flow({"d": count}, {"y": "$steps.d.numbers"}, [{"list": [5.0, 5.0, 5.0]}])
    assert result.outputs == {"y": [[], [0], [0, 1]]}


def test_a_repeated_step_is_skipped_as_a_whole(flow):
    steps = {**LOOP, "each": {**LOOP["each"], "when": when("$steps.list.numbers", "at_least", 2)}}
    one, two = flow(steps, EACH_OUT, [{"n": 1}, {"n": 2}])
    assert (one.outputs, two.outputs) == ({}, {"doubled": [0, 2]})


def test_a_list_that_could_not_be_made_leaves_the_loop_out(flow):
    bad, good = flow(LOOP, EACH_OUT, [{"n": -1}, {"n": 1}])
    assert [error.step for error in bad.errors] == ["list"]
    assert good.outputs == {"doubled": [0]}


def test_hooks_and_the_trace_see_elements_and_skips(flow, tmp_path):
    seen = []

    class Watch:
        @hookimpl
        def before_step(self, step, item_ids):
            seen.append((step.id, list(item_ids)))

        @hookimpl
        def on_step_skip(self, step, item_id, reason):
            seen.append((step.id, item_id, reason))

    recorder = TraceRecorder()
    flow.plugins.manager.register(Watch())
    flow.plugins.manager.register(recorder)
    steps = {**LOOP, "no": double(1, when=when("$inputs.n", "equals", 9))}
    flow(steps, {**EACH_OUT, "no": "$steps.no.number"}, [{"n": 2}])
    reason = "'when' does not hold: $inputs.n is equals 9"
    assert sorted(seen) == [("each", ["0[0]", "0[1]"]), ("list", ["0"]), ("no", "0", reason)]
    recorder.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["args"]["skipped"] for e in events if "skipped" in e["args"]] == [reason]
    assert ["0[0]", "0[1]"] in [e["args"].get("items") for e in events]


def test_the_number_of_elements_at_once_is_checked(flow):
    with pytest.raises(ValueError, match="elements wants 1 or more, got 0"):
        flow(LOOP, EACH_OUT, [{}], elements=0)


def test_what_is_no_list_cannot_be_repeated_over(flow):
    with pytest.raises(PipelineError, match=r"'for_each' wants a list, but \$inputs.n is integer"):
        flow({"d": double("$each", for_each="$inputs.n")}, {"y": "$steps.d.number"}, [{}])


# --- with pictures ----------------------------------------------------------------------------

CLOSER = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
steps:
  crops: {use: image/crop@v1, with: {image: $inputs.image, detections: $inputs.boxes}}
  closer:
    for_each: $steps.crops.crops
    use: sam2/segment@v1
    with:
      image: $each
      prompts: [{box_xyxy: [4, 5, 30, 33]}, {point_coords: [[20, 20]], point_labels: [1]}]
outputs:
  crops: $steps.crops.crops
  masks: $steps.closer.predictions
"""
PROMPTS = [
    {"box_xyxy": [4, 5, 30, 33]},
    {"point_coords": [[20, 20]], "point_labels": [1]},
]


@pytest.mark.parametrize("model", ["fake", "nano"])
def test_for_each_over_crops_equals_a_run_for_each_crop(plugins, model):
    pipeline = load_pipeline(parse_yaml(CLOSER).data, plugins.manifests, plugins.kinds)
    factories = {"sam2": FakeExecutor} if model == "fake" else plugins.executors
    resources = Resources(factories)
    pictures = [read_image(PICTURES / name) for name in ("coffee.jpg", "chelsea.jpg")]
    boxes = [[40, 30, 140, 130], [100, 100, 180, 160], [0, 0, 60, 60]]
    items = [
        Item(one.id, {"image": one, "boxes": boxes[: 2 + i]}) for i, one in enumerate(pictures)
    ]
    with Runner(pipeline, plugins, resources=resources, elements=4) as runner:
        results = list(runner.run(items))
    different = pixels = 0
    for result in results:
        assert not result.errors
        for crop, found in zip(result.outputs["crops"], result.outputs["masks"], strict=True):
            inputs = {"image": crop, "prompts": PROMPTS}
            alone = run_block("sam2/segment@v1", inputs, plugins=plugins, resources=resources)
            other = alone.outputs["predictions"]
            different += int((found.mask.to_dense() ^ other.mask.to_dense()).sum())
            pixels += found.mask.size
    assert pixels > 10_000
    assert different <= (0 if model == "fake" else pixels / 1e5)


@pytest.mark.parametrize(
    ("model", "own", "expected"),
    [
        ("$inputs.model", ("model",), True),
        ("$inputs.model", ("image",), False),
        ("$inputs.model", (), False),
        ("nano", ("image", "model"), False),
        (None, ("image",), True),
    ],
)
def test_an_item_that_names_its_model_is_known(plugins, model, own, expected):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "model": {"kind": "string", "default": "nano"}},
        "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
        "outputs": {"embedding": "$steps.embed.embedding"},
    }
    if model:
        document["steps"]["embed"]["with"]["model"] = model
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    [step] = pipeline.steps
    if not model:  # a step that chooses one for each picture
        step = replace(step, values={**step.values, "model": StepRef("first", "model")})
    assert Plan(step, pipeline).has_own_model(Progress("a", own=own)) is expected

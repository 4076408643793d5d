"""Every misuse of flow is found before anything runs, at its line and column."""
# ruff: noqa: E501 (whole messages, as a user reads them)

from __future__ import annotations

import pytest

from sam2_blocks.errors import PipelineError
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.flow import comparisons_of
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.language.pipeline import check_pipeline
from sam2_blocks.language.selectors import EachRef, StepRef

LISTS = """\
manifest_version: 1
id: test/parts@v1
title: Parts
summary: Cuts a picture into parts.
entry: tests:Nothing
inputs: {image: {kind: image, required: true}}
outputs: {parts: {kind: list of image}, lists: {kind: list of list of image}}
"""

GOOD = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
  limit: {kind: integer, default: 2}
steps:
  parts: {use: test/parts@v1, with: {image: $inputs.image}}
  each:
    for_each: $steps.parts.parts
    use: sam2/automatic@v1
    with: {image: $each}
  segment:
    when: {value: $inputs.boxes, is: not_empty}
    use: sam2/segment@v1
    with: {image: $inputs.image, boxes: $inputs.boxes}
outputs:
  found: $steps.each.predictions
  masks: {value: $steps.segment.predictions, default: empty}
"""


@pytest.fixture
def check(plugins):
    plugins.manifests["test/parts@v1"] = load_manifest(LISTS, "m.yaml", plugins.kinds)

    def run(text):
        return check_pipeline(parse_yaml(text, "p.yaml"), plugins.manifests, plugins.kinds)

    return run


def test_a_repeated_step_makes_lists(check):
    pipeline = check(GOOD)
    each = next(step for step in pipeline.steps if step.id == "each")
    assert each.for_each == EachRef(StepRef("parts", "parts"))
    assert each.values["image"] == each.for_each
    kinds = pipeline.kinds_of(pipeline.outputs["found"])
    assert kinds[0] == "list of rle_instance_segmentation_prediction"
    assert pipeline.kinds_of(StepRef("each", "each")) == ("list of image",)


def test_it_is_known_what_may_be_absent(check):
    text = GOOD.replace(
        "masks: {value: $steps.segment.predictions, default: empty}",
        "m: $steps.segment.predictions",
    )
    assert check(text).may_lack("m")
    assert not check(text).may_lack("found")
    assert not check(GOOD).may_lack("masks")


WHEN = "{value: $inputs.boxes, is: not_empty}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "with: {image: $each}",
            "with: {image: $steps.parts.parts}",
            "11:12: steps.each.with.image: input 'image' of sam2/automatic@v1 wants image, but "
            "$steps.parts.parts is list of image. Repeat the step with 'for_each', and wire $each.",
        ),
        (
            "image: $inputs.image, boxes",
            "image: $each, boxes",
            "15:12: steps.segment.with.image: $each is there in a step with 'for_each', and this one has none.",
        ),
        (
            "image: $inputs.image, boxes",
            "image: $inputs.image, min_confidence: $index, boxes",
            "15:34: steps.segment.with.min_confidence: $index is there in a step with 'for_each', and this",
        ),
        (
            WHEN,
            "{value: $inputs.boxes, is: emtpy}",
            "13:34: steps.segment.when.is: Input should be 'not_empty', 'empty'",
        ),
        (
            WHEN,
            "{value: $inputs.image, is: not_empty}",
            "13:34: steps.segment.when.is: 'not_empty' goes with a count or a text (detections and "
            "lists are counted), but $inputs.image is image.",
        ),
        (
            WHEN,
            "{value: $inputs.boxes, is: equals}",
            "13:34: steps.segment.when.is: 'equals' wants 'to', which $inputs.boxes is compared with.",
        ),
        (
            WHEN,
            "{value: $inputs.boxes, is: empty, to: 3}",
            "13:45: steps.segment.when.to: 'empty' takes no 'to'.",
        ),
        (
            WHEN,
            "{value: $inputs.boxes, is: at_least, to: two}",
            "13:48: steps.segment.when.to: 'at_least' wants a number here, got 'two'.",
        ),
        (
            WHEN,
            "{value: $inputs.boxes, is: at_least, to: $inputs.image}",
            "'at_least' wants a number here, but $inputs.image is image.",
        ),
        (WHEN, "{value: $inputs.limit, is: in, to: 3}", "'in' wants a list of a number, got 3."),
        (WHEN, "{value: $inputs.limit, is: in, to: [3, x]}", "'in' wants a number here, got 'x'."),
        (
            WHEN,
            "{value: $inputs.limit, is: in, to: $inputs.limit}",
            "'in' wants a list here, but $inputs.limit is integer.",
        ),
        (
            WHEN,
            "{value: boxes, is: empty}",
            "13:12: steps.segment.when.value: 'value' wants a selector, got 'boxes'.",
        ),
        (WHEN, "{value: $input.boxes, is: empty}", "'$input.boxes' is no selector"),
        (
            WHEN,
            "{value: $inputs.boxs, is: empty}",
            "the pipeline has no input 'boxs'. Did you mean 'boxes'?",
        ),
        (
            WHEN,
            "{value: $each, is: empty}",
            "'when' is asked before the elements come; $each is not there yet.",
        ),
        (
            WHEN,
            "{value: $inputs.boxes}",
            "13:5: steps.segment.when: 'is' is required beside 'value'.",
        ),
        (WHEN, "{is: empty}", "13:5: steps.segment.when: 'value' is required beside 'is'."),
        (WHEN, "{}", "a condition is one of: 'value' with 'is', 'all', 'any', 'not'."),
        (WHEN, "{not: {}}", "steps.segment.when.not: a condition is one of"),
        (
            WHEN,
            "{any: [{value: $inputs.boxes, is: equals, to: x}]}",
            "steps.segment.when.any.0.to: 'equals' wants a number here, got 'x'.",
        ),
        (WHEN, "{all: []}", "steps.segment.when.all: List should have at least 1 item"),
        (
            "for_each: $steps.parts.parts",
            "for_each: $inputs.image",
            "9:5: steps.each.for_each: 'for_each' wants a list, but $inputs.image is image.",
        ),
        (
            "for_each: $steps.parts.parts",
            "for_each: $each",
            "'for_each' wants a selector of a list, got '$each'.",
        ),
        (
            "for_each: $steps.parts.parts",
            "for_each: $steps.parts.prts",
            "has no output 'prts'. Did you mean 'parts'?",
        ),
        (
            "for_each: $steps.parts.parts",
            "for_each: parts",
            "'for_each' wants a selector of a list, got 'parts'.",
        ),
        ("for_each: $steps.parts.parts", "for_each: $parts", "'$parts' is no selector"),
        (
            "    when: {",
            "    on_error: drop\n    when: {",
            "13:5: steps.segment.on_error: 'on_error' goes with 'for_each'.",
        ),
        (
            "    for_each:",
            "    on_error: ignore\n    for_each:",
            "9:5: steps.each.on_error: Input should be 'fail' or 'drop'",
        ),
        (
            "found: $steps.each.predictions",
            "found: $each",
            "17:3: outputs.found: an output wants a selector, got $each.",
        ),
        (
            "default: empty",
            "default: 3",
            "18:46: outputs.masks.default: the default is wrong: rle_instance_segmentation_prediction or instance_segmentation_prediction cannot be written out; write empty.",
        ),
        (
            "default: empty",
            "default: null",
            "the default is wrong: null is what an output is without a default; leave it out.",
        ),
        (
            "found: $steps.each.predictions",
            "found: {value: $inputs.limit, default: many}",
            "17:33: outputs.found.default: the default is wrong: wants int, got str.",
        ),
        (
            "$steps.segment.predictions, d",
            "$steps.segment.masks, d",
            "18:11: outputs.masks.value: sam2/segment@v1 has no output 'masks'.",
        ),
        (WHEN, "{value: $steps.other.predictions, is: empty}", "there is no step 'other'."),
    ],
)
def test_a_misuse_is_named_at_its_place(check, old, new, message):
    assert old in GOOD
    with pytest.raises(PipelineError) as caught:
        check(GOOD.replace(old, new, 1))
    found = str(caught.value).splitlines()
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("p.yaml:") for problem in found)


def test_a_condition_makes_its_step_wait(check):
    text = GOOD.replace("value: $inputs.boxes, is", "value: $steps.last.detections, is").replace(
        "outputs:\n",
        "  last: {use: detections/filter@v1, with: {detections: $inputs.boxes}}\noutputs:\n",
    )
    order = [step.id for step in check(text).steps]
    assert order.index("last") < order.index("segment")


def test_a_cycle_through_a_condition_is_one(check):
    text = GOOD.replace("value: $inputs.boxes, is", "value: $steps.segment.predictions, is")
    with pytest.raises(PipelineError, match="steps form a cycle: segment → segment"):
        check(text)


def test_what_a_condition_uses_counts_as_used(check):
    text = GOOD.replace("  found: $steps.each.predictions\n", "").replace(
        WHEN,
        "{all: [{value: $steps.each.predictions, is: not_empty}, {not: {value: $inputs.limit, is: equals, to: 0}}]}",
    )
    pipeline = check(text)
    assert pipeline.warnings == ()
    [condition] = pipeline.steps[-1].when
    assert [one.operator for one in comparisons_of(condition)] == ["not_empty", "equals"]


@pytest.mark.parametrize("values", ["$inputs.boxes", "[]", "[1]", "{a: $inputs.boxes}"])
def test_first_wants_a_list_of_selectors(check, values):
    step = (
        f"  y: {{use: flow/first@v1, with: {{values: {values}}}}}\noutputs:\n  y: $steps.y.value\n"
    )
    with pytest.raises(PipelineError, match="input 'values' takes a list of selectors"):
        check(GOOD.replace("outputs:\n", step))


def test_first_gives_the_kinds_of_what_it_joins(check):
    step = (
        "  y: {use: flow/first@v1, with: {values: [$inputs.boxes, $steps.segment.predictions]}}\n"
        "outputs:\n  y: $steps.y.value\n"
    )
    pipeline = check(GOOD.replace("outputs:\n", step))
    kinds = pipeline.kinds_of(pipeline.outputs["y"])
    assert kinds[0] == "object_detection_prediction"
    assert "rle_instance_segmentation_prediction" in kinds
    assert not pipeline.may_lack("y")

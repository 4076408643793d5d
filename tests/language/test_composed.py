"""Pipelines in pipelines: one graph, one report, and the file of each mistake."""

from __future__ import annotations

import pytest

from sam2_blocks import Item, Runner
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import PipelineError
from sam2_blocks.language.composed import as_block
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.selectors import EachRef, InputRef, StepRef
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.testing import FakeExecutor, sample_image

BEST = """\
pipeline_version: 1
title: The best masks
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
  most: {kind: integer, default: 1}
  model: {kind: string, default: nano}
steps:
  keep: {use: detections/filter@v1, with: {detections: $inputs.boxes, max_count: $inputs.most}}
  masks:
    use: sam2/segment@v1
    with: {image: $inputs.image, boxes: $steps.keep.detections, model: $inputs.model}
outputs:
  masks: $steps.masks.predictions
"""

OUTER = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
steps:
  best:
    uses: ./parts/best.yaml
    with: {image: $inputs.image, boxes: $inputs.boxes, most: 2}
  draw: {use: draw/masks@v1, with: {image: $inputs.image, predictions: $steps.best.masks}}
outputs:
  masks: $steps.best.masks
  picture: $steps.draw.image
"""


@pytest.fixture
def load(plugins, tmp_path):
    """Write files and load the outer one: ``load(outer, {name: text})``."""

    def run(outer=OUTER, **parts):
        (tmp_path / "parts").mkdir(exist_ok=True)
        for name, text in {"best": BEST, **parts}.items():
            (tmp_path / "parts" / f"{name}.yaml").write_text(text)
        (tmp_path / "outer.yaml").write_text(outer)
        return plugins.load_pipeline(tmp_path / "outer.yaml")

    return run


@pytest.fixture
def problems(load, tmp_path):
    def run(outer=OUTER, **parts):
        with pytest.raises(PipelineError) as caught:
            load(outer, **parts)
        return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]

    return run


@pytest.fixture
def run(plugins):
    def call(pipeline, **inputs):
        resources = Resources({"sam2": FakeExecutor})
        with Runner(pipeline, plugins, resources=resources) as runner:
            [result] = runner.run([Item("a", inputs)])
        return result

    return call


ROWS = [
    {"box_xyxy": [1, 1, 6, 6], "confidence": 0.3},
    {"box_xyxy": [3, 3, 9, 9], "confidence": 0.9},
    {"box_xyxy": [9, 9, 14, 14], "confidence": 0.5},
]


def test_its_steps_become_steps_of_the_outer_one(load):
    pipeline = load()
    assert [step.id for step in pipeline.steps] == ["best.keep", "best.masks", "draw"]
    keep, masks, draw = pipeline.steps
    assert keep.values == {"detections": InputRef("boxes"), "max_count": 2}
    assert masks.values["model"] == "nano"
    assert draw.values["predictions"] == StepRef("best.masks", "predictions")
    assert [file.name for file in pipeline.files] == ["outer.yaml", "best.yaml"]


def test_it_runs_as_if_it_were_written_out(load, run, plugins):
    masks = run(load(), image=sample_image(), boxes=ROWS).outputs["masks"]
    inner = plugins.load_pipeline(parse_yaml(BEST).data)
    alone = run(inner, image=sample_image(), boxes=ROWS, most=2).outputs["masks"]
    assert masks.xyxy.tolist() == alone.xyxy.tolist() == [[3, 3, 8, 8], [9, 9, 13, 13]]


def test_a_mistake_is_named_in_the_file_it_is_in(problems):
    found = problems(
        OUTER.replace("draw/masks", "draw/mask"), best=BEST.replace("max_count", "max_cont")
    )
    assert [one.partition(": ")[0] for one in found] == ["outer.yaml:9:10", "parts/best.yaml:9:71"]
    assert "Did you mean 'max_count'?" in found[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("most: 2", "most: two", "outer.yaml:8:56: steps.best.with.most: Input should be a valid"),
        ("most: 2", "most: -1", "greater than or equal to 0"),
        ("most: 2", "model: nanoo", "steps.best.with.model: "),
        ("most: 2", "many: 2", "unknown key 'many'."),
        (
            ", boxes: $inputs.boxes",
            "",
            "outer.yaml:8:5: steps.best.with.boxes: 'boxes' is required.",
        ),
        (
            "boxes: $inputs.boxes",
            "boxes: $inputs.image",
            "input 'boxes' of ./parts/best.yaml wants",
        ),
        (
            "best.masks}",
            "best.mask}",
            "./parts/best.yaml has no output 'mask'. Did you mean 'masks'?",
        ),
        (
            "./parts/best",
            "./parts/bets",
            "outer.yaml:7:5: steps.best.uses: './parts/bets.yaml' cannot",
        ),
        ("    uses:", "    use: sam2/embed@v1\n    uses:", "give 'use', a block, or 'uses'"),
    ],
)
def test_its_inputs_and_outputs_are_checked_like_those_of_a_block(problems, old, new, message):
    found = problems(OUTER.replace(old, new))
    assert any(message in problem for problem in found), found


def test_pipelines_in_a_circle_are_refused(problems):
    again = BEST.replace("use: sam2/segment@v1", "uses: ../outer.yaml")
    found = problems(best=again)
    where = "parts/best.yaml:11:5: steps.masks.uses: "
    assert found == [
        f"{where}pipelines use each other in a circle: outer.yaml → best.yaml → outer.yaml."
    ]


def test_pipelines_are_nested_to_a_bound(problems):
    def using(name):
        return OUTER.replace("./parts/best.yaml", name)

    parts = {f"p{i}": using(f"./p{i + 1}.yaml") for i in range(12)}
    found = problems(using("./parts/p0.yaml"), **parts)
    assert found == [
        "parts/p7.yaml:7:5: steps.best.uses: pipelines use each other more than 8 deep."
    ]


def test_many_uses_of_many_are_bounded(problems):
    def using(name, times):
        steps = "".join(
            f"  s{i}: {{uses: ./{name}, with: {{image: $inputs.image, boxes: $inputs.boxes}}}}\n"
            for i in range(times)
        )
        head, tail = OUTER.split("steps:\n")[0], "outputs:\n  masks: $steps.s0.masks\n"
        return f"{head}steps:\n{steps}{tail}"

    found = problems(using("parts/q.yaml", 20), q=using("r.yaml", 20), r=using("best.yaml", 20))
    assert "more than 1000 steps" in found[0]


def test_plain_data_may_use_no_files(plugins):
    document = {
        "pipeline_version": 1,
        "inputs": {},
        "steps": {"a": {"uses": "/etc/passwd"}},
        "outputs": {"x": "$steps.a.x"},
    }
    with pytest.raises(PipelineError, match="'uses' names a file beside the pipeline's own"):
        plugins.load_pipeline(document)


def test_an_output_that_is_an_input_is_refused(problems):
    best = BEST.replace("masks: $steps.masks.predictions", "masks: $inputs.boxes")
    assert any("its output 'masks' is its own input" in one for one in problems(best=best))


WHEN = "    when: {value: $inputs.boxes, is: not_empty}\n"


def test_a_condition_on_it_is_one_on_all_of_its_steps(load, run):
    pipeline = load(OUTER.replace("    uses", f"{WHEN}    uses"))
    assert pipeline.may_lack("picture")
    result = run(pipeline, image=sample_image(), boxes=[])
    assert result.outputs == {}
    assert [one.step for one in result.skipped] == ["best.keep", "best.masks", "draw"]


def test_a_default_inside_is_one_outside(load, run):
    best = BEST.replace("  masks:\n    use:", f"  masks:\n{WHEN}    use:").replace(
        "masks: $steps.masks.predictions",
        "masks: {value: $steps.masks.predictions, default: empty}",
    )
    pipeline = load(best=best)
    assert not pipeline.may_lack("picture")
    result = run(pipeline, image=sample_image(), boxes=[])
    assert len(result.outputs["masks"]) == 0
    assert result.outputs["picture"].hw == sample_image().hw


LOOPED = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
steps:
  crops: {use: image/crop@v1, with: {image: $inputs.image, detections: $inputs.boxes}}
  best:
    for_each: $steps.crops.crops
    uses: ./parts/best.yaml
    with: {image: $each, boxes: [[0, 0, 3, 3], [1, 1, 2, 2]], most: 5}
  back: {use: detections/uncrop@v1, with: {detections: $steps.best.masks, crops: $steps.best.each}}
outputs:
  masks: $steps.back.detections
"""


def test_a_pipeline_is_repeated_as_one(load, run):
    pipeline = load(LOOPED)
    _, keep, masks, back = pipeline.steps
    assert masks.values["boxes"] == EachRef(StepRef("best.keep", "detections"))
    assert keep.for_each == masks.for_each == EachRef(StepRef("crops", "crops"))
    assert back.values["crops"] == StepRef("crops", "crops")
    found = run(pipeline, image=sample_image(), boxes=ROWS).outputs["masks"]
    assert found.xyxy.tolist()[:4] == [[1, 1, 3, 3], [2, 2, 2, 2], [3, 3, 5, 5], [4, 4, 4, 4]]
    assert [rle.size for rle in to_rles(found)] == [(24, 32)] * 6


@pytest.mark.parametrize(
    ("text", "parts", "message"),
    [
        (
            LOOPED,
            {"best": BEST.replace("  masks:\n    use:", f"  masks:\n{WHEN}    use:")},
            "outer.yaml:8:5: steps.best.for_each: step 'masks' of ./parts/best.yaml has 'when'",
        ),
        (
            LOOPED.replace("best.yaml", "looped.yaml").replace(", most: 5", ""),
            {"looped": LOOPED.replace("./parts/", "./")},
            "has 'for_each': a 'for_each' inside another is not supported.",
        ),
        (
            LOOPED.replace("    uses:", "    on_error: drop\n    uses:"),
            {},
            "outer.yaml:9:5: steps.best.on_error: 'drop' is for one block",
        ),
    ],
)
def test_a_loop_inside_a_loop_is_refused(problems, text, parts, message):
    found = problems(text, **parts)
    assert any(message in problem for problem in found), found


def test_a_pipeline_as_a_block_has_its_parameters(load):
    block = as_block(load(BEST), "pipelines/best@v1")
    assert list(block.inputs) == ["image", "boxes"]
    assert (block.params["most"].type, block.params["most"].minimum) == ("integer", 0)
    assert (block.params["model"].format, block.params["model"].default) == ("model", "nano")
    assert block.title == "The best masks"
    assert block.resources.hints.accelerator == "cuda"

from __future__ import annotations

import pytest

from sam2_blocks.errors import PipelineError
from sam2_blocks.language.unknown import unknown_block

KNOWN = ["export/yolo@v1", "export/coco@v1", "sam2/segment@v1", "sam2/segment@v2"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("sam2/segment@v9", "use 'sam2/segment@v1' or 'sam2/segment@v2'."),
        ("sam2/segmnt@v1", "Did you mean 'sam2/segment@v1'?"),
        ("export/yollo@v1", "Did you mean 'export/yolo@v1'?"),
        ("exprt/yolo@v1", "Did you mean 'export/yolo@v1'?"),
        ("export/zzzzzzzzzzzzzz", "'export/coco@v1', 'export/yolo@v1'."),
        ("mmdet/yolo@v1", "No plugin that is installed has blocks called 'mmdet'"),
        ("ultralytics/yolo@v1", "would come from examples/plugin_ultralytics of this library's"),
        ("opencv/detect@v1", "It would come from examples/plugin"),
        ("yolo", "or use blocks of export, sam2."),
    ],
)
def test_an_unknown_block_gets_the_hint_that_helps(use, message):
    text = unknown_block(use, KNOWN)
    assert text.startswith(("unknown block ", "there is no "))
    assert message in text


def test_a_block_of_another_namespace_is_not_meant():
    assert "export/yolo" not in unknown_block("ultralytics/yolo@v1", KNOWN)


def test_unknown_keys_and_blocks_are_reported_together(plugins):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {"find": {"use": "ultralytics/yolo@v1", "wiht": {}}},
        "outputs": {"found": "$steps.find.detections"},
        "title2": "x",
    }
    with pytest.raises(PipelineError) as caught:
        plugins.load_pipeline(document)
    text = str(caught.value)
    assert "unknown key 'wiht'. Did you mean 'with'?" in text
    assert "unknown key 'title2'. Did you mean 'title'?" in text
    assert "unknown block 'ultralytics/yolo@v1'" in text


DOCUMENT = """\
pipeline_version: 1
inputs: {image: {kind: image}}
colour: red
steps:
  find: {use: ultralytics/yolo@v1, with: {image: $inputs.imag}}
  mask: {use: sam2/segment@v1, wth: {image: $inputs.image, boxs: $steps.find.boxes}}
  draw: {use: draw/masks@v1, with: {image: $inputs.image, predictions: $steps.mask.preds}}
outputs: {drawn: $steps.draw.imge, found: $steps.fnd.boxes}
"""


def test_whatever_is_wrong_is_reported_at_once(plugins, tmp_path):
    (tmp_path / "a.yaml").write_text(DOCUMENT)
    with pytest.raises(PipelineError) as caught:
        plugins.load_pipeline(tmp_path / "a.yaml")
    assert [(one.line, one.where) for one in caught.value.problems] == [
        (3, "colour"),
        (5, "steps.find.use"),
        (5, "steps.find.with.image"),
        (6, "steps.mask.with.boxs"),
        (6, "steps.mask.with"),
        (6, "steps.mask.wth"),
        (7, "steps.draw.with.predictions"),
        (8, "outputs.drawn"),
        (8, "outputs.found"),
    ]


def test_keys_that_are_wrong_twice_are_no_reason_to_fail(plugins):
    steps = {
        "a": {"use": "sam2/embed@v1", "with": {}, "wth": {"image": 1}, "wiht": {}, "when": {"x": 1}}
    }
    with pytest.raises(PipelineError, match="unknown key 'x'") as caught:
        plugins.load_pipeline(
            {"pipeline_version": 1, "steps": steps, "inputs": {"i": {"kid": "x"}}}
        )
    assert {"steps.a.wth", "steps.a.wiht", "outputs"} <= {
        one.where for one in caught.value.problems
    }

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import Image, Item, PluginError, Resources, Runner, detector_block
from sam2_blocks.testing import FakeExecutor, check_block, sample_image


def two_boxes(pixels):
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return sv.Detections(
        np.array([[2, 3, 12, 15], [14, 5, 30, 20]], float), class_id=np.array([0, 7])
    )


def run(plugins, **steps):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": steps,
        "outputs": {
            name: f"$steps.{name}.{'predictions' if name == 'segment' else 'detections'}"
            for name in steps
        },
    }
    pipeline = plugins.load_pipeline(document)
    with Runner(pipeline, plugins, resources=Resources({"sam2": FakeExecutor})) as runner:
        [result] = runner.run([Item("a", {"image": sample_image()})])
    return result


STEP = {"use": "python/detect@v1", "with": {"image": "$inputs.image"}}
SEGMENT = {
    "use": "sam2/segment@v1",
    "with": {"image": "$inputs.image", "boxes": "$steps.detect.detections"},
}


def test_a_function_finds_what_another_step_segments(plugins):
    plugins = plugins.with_blocks(detector_block(two_boxes))
    result = run(plugins, detect=STEP, segment=SEGMENT)
    assert result.outputs["detect"].data["class_name"].tolist() == ["class_0", "class_7"]
    masks = result.outputs["segment"]
    assert masks.class_id.tolist() == [0, 7]
    assert np.asarray(masks.mask).sum(axis=(1, 2)).tolist() == [120, 240]


def test_what_it_does_to_its_pixels_and_answer_is_its_own(plugins):
    mine = two_boxes(np.zeros((30, 40, 3), np.uint8))
    seen = []

    def paint(pixels):
        seen.append(pixels.copy())
        pixels[:] = 0
        return mine

    plugins = plugins.with_blocks(detector_block(paint))
    result = run(plugins, detect=STEP, again=STEP)
    assert not result.errors
    assert np.array_equal(seen[0], sample_image().pixels)
    assert np.array_equal(*seen)
    assert mine.data == {}


def test_what_cannot_be_called_is_refused_at_once():
    with pytest.raises(TypeError, match=r"wants a function of pixels .*, got int"):
        detector_block(5)


def test_it_is_checked_like_any_block(plugins):
    check_block("python/detect@v1", plugins=plugins.with_blocks(detector_block(two_boxes)))


def test_two_functions_have_two_ids(plugins):
    other = detector_block(lambda pixels: sv.Detections.empty(), "mine/nothing@v1")
    plugins = plugins.with_blocks(detector_block(two_boxes), other)
    nothing = {**STEP, "use": "mine/nothing@v1"}
    result = run(plugins, detect=STEP, nothing=nothing)
    assert [len(result.outputs[name]) for name in ("detect", "nothing")] == [2, 0]


def test_an_object_that_can_be_called_has_a_name():
    class Detector:
        def __call__(self, pixels):
            return sv.Detections.empty()

    assert detector_block(Detector()).title == "Detector"


def test_what_is_no_detections_is_refused(plugins):
    plugins = plugins.with_blocks(detector_block(lambda pixels: [[0, 0, 1, 1]]))
    [error] = run(plugins, detect=STEP).errors
    assert "must return supervision.Detections, got list. Convert its answer" in error.message


def test_a_function_that_fails_fails_its_picture(plugins):
    def broken(pixels):
        raise RuntimeError("no weights")

    [error] = run(plugins.with_blocks(detector_block(broken)), detect=STEP).errors
    assert "no weights" in error.message


def test_ids_are_those_of_blocks_and_are_taken_once(plugins):
    with pytest.raises(ValueError, match="id"):
        detector_block(two_boxes, "detect")
    with pytest.raises(PluginError, match="there is a block 'sam2/segment@v1' already"):
        plugins.with_blocks(detector_block(two_boxes, "sam2/segment@v1"))


def test_the_example_of_the_docs_runs(tmp_path):
    import re

    from tests.conftest import ROOT

    text = (ROOT / "docs" / "how-to" / "chain-a-detector.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names = {}
    exec(code, names)
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    with Runner(names["pipeline"], names["plugins"], resources=resources) as runner:
        [result] = runner.run([Item("a", {"image": Image(np.zeros((60, 80, 3), np.uint8))})])
    assert len(result.outputs["predictions"]) == 1

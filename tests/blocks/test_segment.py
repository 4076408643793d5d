from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.testing import (
    FakeExecutor,
    sample_detections,
    sample_image,
)
from sam2_blocks.values import PromptSet


def test_segment_carries_class_and_confidence_over(run_one_step):
    found = sample_detections()
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "boxes": found})
    predictions = result.outputs["predictions"]
    assert predictions.data["class_name"].tolist() == ["face", "object"]
    assert np.allclose(predictions.confidence, [0.9, 0.6])
    assert np.allclose(predictions.data["iou_prediction"], 0.75)
    assert predictions.data["parent_id"].tolist() == found.data["detection_id"].tolist()


def test_segment_drops_uncertain_masks_but_keeps_their_numbers(run_one_step):
    result = run_one_step(
        "sam2/segment@v1",
        {"image": sample_image(), "boxes": sample_detections()},
        {"min_confidence": 0.8},
    )
    assert len(result.outputs["predictions"]) == 0


def test_segment_takes_no_prompts(run_one_step):
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": PromptSet()})
    assert len(result.outputs["predictions"]) == 0
    assert not result.errors


def test_segment_takes_ten_thousand_prompts(run_one_step):
    boxes = np.tile(np.array([[2, 3, 12, 15]], np.float32), (10_000, 1))
    prompts = PromptSet.from_boxes(boxes)
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert len(result.outputs["predictions"]) == 10_000


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([12, 3, 2, 15], "inverted"),
        ([2, 15, 12, 3], "inverted"),
        ([100, 100, 120, 120], "outside"),
    ],
)
def test_segment_refuses_meaningless_boxes(run_one_step, box, message):
    prompts = PromptSet.from_boxes([[1, 1, 5, 5], box])
    [error] = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts}).errors
    assert "prompt 1" in error.message
    assert message in error.message


def test_segment_clips_boxes_that_reach_outside(run_one_step):
    prompts = PromptSet.from_boxes([[20, 10, 90, 90]])
    with pytest.warns(UserWarning, match="clipped"):
        result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert result.outputs["predictions"].xyxy[0].tolist() == [20, 10, 31, 23]


def test_segment_answers_on_tiles_where_asked(run_one_step):
    inputs = {"image": sample_image(), "boxes": sample_detections()}
    whole = run_one_step("sam2/segment@v1", inputs).outputs["predictions"]
    tiled = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).outputs["predictions"]
    assert tiled.mask == whole.mask
    assert tiled.data["class_name"].tolist() == ["face", "object"]


def test_tiles_want_the_picture(run_one_step):
    [embedding] = FakeExecutor().embed([sample_image()])
    inputs = {"embedding": embedding, "boxes": sample_detections()}
    [error] = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).errors
    assert "tile_px = 18 cuts the picture itself, and got its embedding" in error.message

import numpy as np
import pytest

from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import FakeExecutor, sample_image
from sam2_blocks.values import AutomaticSettings, PromptSet, SegmentOptions, settings_of


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 6)), r"shape \(N, 4\), got \(2, 6\).*xyxy, confidence, class: give boxes"),
        (np.zeros((3, 5)), r"got \(3, 5\).*xyxy and a confidence"),
        ([1, 2, 3, 4], r"got \(4,\).*a list of one row"),
        (np.zeros((0, 6)), r"got \(0, 6\)"),
        (np.zeros((1, 2, 2)), r"got \(1, 2, 2\)"),
    ],
)
def test_boxes_are_never_reshaped(boxes, message):
    with pytest.raises(ValueError, match=message):
        PromptSet.from_boxes(boxes)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[80, 60, 1], [10, 10, 0]], r"\(N, 2\), got \(2, 3\).*third column is probably the label"),
        ([80, 60], r"got \(2,\).*a list of one row"),
    ],
)
def test_points_are_never_reshaped(points, message):
    with pytest.raises(ValueError, match=message):
        PromptSet.from_points(points)


def test_no_rows_are_no_prompts():
    assert len(PromptSet.from_boxes([])) == len(PromptSet.from_boxes(np.zeros((0, 4)))) == 0
    assert len(PromptSet.from_points([])) == 0


def test_reprs_are_one_line_of_shapes():
    [embedding] = FakeExecutor().embed([sample_image("a.png")])
    assert repr(embedding) == (
        "Embedding(image_id='a.png', image_hw=(24, 32), image_embed=(1, 4, 4, 4), "
        "spec=fake/cpu/float32)"
    )
    prediction = masks_to_prediction(np.ones((2, 4, 6), bool))
    assert repr(prediction).startswith("MaskPrediction(2 masks, image_hw=(4, 6), low_res_logits=")
    assert "\n" not in repr(prediction)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_threshold": float("nan")}, "mask_threshold wants a finite number, got nan"),
        ({"max_hole_area": -1}, "max_hole_area wants 0 or more, got -1"),
        ({"max_sprinkle_area": -5}, "max_sprinkle_area wants 0 or more, got -5"),
    ],
)
def test_options_have_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentOptions(**options).checked()


def test_options_are_the_keywords_of_segment():
    assert SegmentOptions(max_hole_area=3).keywords() == {
        "multimask_output": True,
        "mask_threshold": 0.0,
        "max_hole_area": 3,
        "max_sprinkle_area": 0,
    }


def test_settings_are_read_from_attributes():
    assert settings_of(AutomaticSettings, AutomaticSettings(points_per_side=7)).points_per_side == 7

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import Image

HEIGHT, WIDTH = 90, 120
Y, X = np.mgrid[:HEIGHT, :WIDTH]
DISC = (X - 60) ** 2 + (Y - 40) ** 2 < 20**2
DISC_BOX = [36, 17, 84, 64]


@pytest.fixture
def disc():
    """An orange disc on blue, both noisy."""
    noise = np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 3))
    colours = np.where(DISC[..., None], (230, 120, 30), (40, 70, 160))
    return Image((colours + noise).clip(0, 255).astype(np.uint8), "disc")


def boxes(*xyxy, **columns):
    return sv.Detections(np.array(xyxy, np.float32).reshape(-1, 4), **columns)


@pytest.fixture
def cut(run_block):
    def run(image, found, **params):
        result = run_block("opencv/grabcut@v1", {"image": image, "boxes": found}, **params)
        assert result.errors == ()
        return result.outputs["predictions"]

    return run


def masks_of(predictions):
    return list(predictions.mask)


def test_cuts_the_object_out(cut, disc):
    predictions = cut(disc, boxes(DISC_BOX))
    [mask] = masks_of(predictions)
    assert (mask & DISC).sum() / (mask | DISC).sum() > 0.97
    assert predictions.data["iou_prediction"][0] > 0.97


def test_the_mask_lies_inside_its_box(cut, astronaut):
    x0, y0, x1, y1 = box = [177, 66, 272, 161]
    [mask] = masks_of(cut(astronaut, boxes(box)))
    assert mask[y0:y1, x0:x1].mean() > 0.2
    mask[y0:y1, x0:x1] = False
    assert not mask.any()


def test_the_same_box_gives_the_same_mask_whatever_ran_before(cut, astronaut):
    box, other = [100, 40, 320, 330], [350, 0, 470, 290]
    [alone] = masks_of(cut(astronaut, boxes(box)))
    _, second, third = masks_of(cut(astronaut, boxes(other, box, box)))
    np.testing.assert_array_equal(second, alone)
    np.testing.assert_array_equal(third, alone)


def test_class_confidence_and_id_of_the_boxes_arrive(cut, disc):
    found = boxes(
        DISC_BOX,
        confidence=np.array([0.3], np.float32),
        class_id=np.array([4]),
        tracker_id=np.array([9]),
        data={"class_name": np.array(["ball"])},
    )
    predictions = cut(disc, found)
    assert predictions.confidence[0] == np.float32(0.3)
    assert (predictions.class_id[0], predictions.tracker_id[0]) == (4, 9)
    assert predictions.data["class_name"][0] == "ball"


def test_no_boxes_give_typed_empty_predictions(cut, disc):
    predictions = cut(disc, sv.Detections.empty())
    assert predictions.xyxy.shape == (0, 4)
    assert len(predictions.mask) == 0


def test_a_box_that_reaches_outside_counts_as_far_as_the_picture_goes(cut, disc):
    [mask] = masks_of(cut(disc, boxes([36, -40, 84, 64])))
    assert (mask & DISC).sum() / (mask | DISC).sum() > 0.9


@pytest.mark.parametrize(
    "box",
    [[0, 0, WIDTH, HEIGHT], [10, 10, 10, 10], [84, 64, 36, 17], [200, 200, 220, 220]],
    ids=["whole picture", "empty", "inverted", "outside"],
)
def test_a_box_without_inside_or_background_is_refused(run_block, disc, box):
    found = {"image": disc, "boxes": boxes(DISC_BOX, box)}
    [error] = run_block("opencv/grabcut@v1", found).errors
    assert error.message.startswith("box 1 [")
    assert "GrabCut wants pixels inside the box and background around it" in error.message

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sam2_blocks_onnx.scaling import DEVIATION, MEAN, scaling_of, to_input

SIZES = [(480, 640), (640, 480), (333, 500), (1080, 1920), (640, 640), (17, 31), (1, 3000)]


def letterboxed(pixels, side):
    """By hand, as the exporters of YOLO describe it: scale, centre, grey around."""
    height, width = pixels.shape[:2]
    gain = min(side / height, side / width)
    new_h, new_w = max(round(height * gain), 1), max(round(width * gain), 1)
    if (new_h, new_w) != (height, width):
        pixels = cv2.resize(pixels, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    up, left = (side - new_h) // 2, (side - new_w) // 2
    around = (up, side - new_h - up, left, side - new_w - left)
    return cv2.copyMakeBorder(pixels, *around, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def noise(hw):
    return np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)


def as_pixels(made):
    return (made.transpose(1, 2, 0) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("hw", SIZES)
def test_letterbox_is_that_of_the_exporters_to_the_bit(hw):
    made = to_input(noise(hw), scaling_of(hw, (640, 640), "letterbox"))
    np.testing.assert_array_equal(as_pixels(made), letterboxed(noise(hw), 640))


@pytest.mark.parametrize("hw", SIZES)
def test_letterbox_is_that_of_ultralytics(hw):
    augment = pytest.importorskip("ultralytics.data.augment", exc_type=ImportError)
    ops = pytest.importorskip("ultralytics.utils.ops", exc_type=ImportError)
    scaling = scaling_of(hw, (640, 640), "letterbox")
    theirs = augment.LetterBox((640, 640), auto=False)(image=noise(hw))
    np.testing.assert_array_equal(as_pixels(to_input(noise(hw), scaling)), theirs)
    boxes = np.random.default_rng(1).uniform(0, 640, (50, 4)).astype(np.float32)
    back = ops.scale_boxes((640, 640), boxes.copy(), hw)
    np.testing.assert_allclose(scaling.boxes_back(boxes), back, atol=1e-3)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("hw", SIZES)
def test_the_corners_of_the_picture_come_back(hw, resize):
    scaling = scaling_of(hw, (320, 640), resize)
    left, top = scaling.corner_xy
    height, width = scaling.inside_hw
    [box] = scaling.boxes_back(np.array([[left, top, left + width, top + height]], np.float32))
    np.testing.assert_allclose(box, [0, 0, hw[1], hw[0]], atol=1e-3)


def test_stretch_fills_the_input():
    made = to_input(np.full((5, 9, 3), 255, np.uint8), scaling_of((5, 9), (32, 64), "stretch"))
    assert (made == 1).all()


def test_boxes_end_where_the_picture_does():
    scaling = scaling_of((10, 20), (40, 40), "letterbox")
    [box] = scaling.boxes_back(np.array([[-9, 0, 70, 40]], np.float32))
    assert box.tolist() == [0, 0, 20, 10]


def test_imagenet_colours_have_its_mean_and_deviation():
    scaling = scaling_of((4, 4), (4, 4), "stretch")
    made = to_input(noise((4, 4)), scaling, normalize="imagenet")
    by_hand = (noise((4, 4)) / 255 - MEAN) / DEVIATION
    np.testing.assert_allclose(made, by_hand.transpose(2, 0, 1), atol=1e-5)

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from tests.blocks.crops import IMAGE, boxes, crop, masked


@pytest.mark.parametrize(
    ("params", "window"),
    [
        ({}, (10, 20, 30, 26)),
        ({"padding": 0.1}, (8, 18, 32, 28)),
        ({"padding": 1}, (0, 0, 50, 46)),
        ({"padding": 1, "border": "fill"}, (-10, 0, 50, 46)),
        ({"square": True}, (10, 13, 30, 33)),
        ({"min_size_px": 40}, (0, 3, 40, 43)),
        ({"min_size_px": 70}, (0, 0, 70, 60)),
        ({"min_size_px": 70, "border": "fill"}, (-15, -12, 55, 58)),
    ],
)
def test_the_window_around_a_box(run_one_step, params, window):
    [part] = crop(run_one_step, boxes((10.4, 20, 29.6, 25.5)), **params)["crops"]
    assert part.parent.window_xyxy == window
    assert part.hw == (window[3] - window[1], window[2] - window[0])
    assert (part.id, part.parent.id) == ("cat-crop0.jpg", "cat.jpg")


def test_boxes_without_a_place_have_no_crop_and_no_row(run_one_step):
    found = sv.Detections(
        np.array([[0, 0, 5, 5], [90, 0, 95, 5], [0, 0, 1, 1], [70, 50, 99, 99]], np.float32)
    )
    found.xyxy[2, 0] = np.nan
    outputs = crop(run_one_step, found)
    assert [part.hw for part in outputs["crops"]] == [(5, 5), (10, 10)]
    assert outputs["detections"].xyxy[:, 0].tolist() == [0, 70]


def test_the_background_of_a_mask_may_be_filled(run_one_step):
    found = masked(np.s_[5:10, 7:20])
    found.xyxy[:] = [4, 4, 22, 12]
    [part] = crop(run_one_step, found, background="fill", fill=9)["crops"]
    x0, y0 = part.parent.offset_xy
    assert np.array_equal(part.pixels[5 - y0 : 10 - y0, 7 - x0 : 20 - x0], IMAGE.pixels[5:10, 7:20])
    outside = np.ones(part.hw, bool)
    outside[5 - y0 : 10 - y0, 7 - x0 : 20 - x0] = False
    assert (part.pixels[outside] == 9).all()


def test_a_filled_background_wants_masks(run_one_step):
    result = run_one_step(
        "image/crop@v1", {"image": IMAGE, "detections": boxes((1, 1, 5, 5))}, {"background": "fill"}
    )
    assert result.errors[0].message.startswith("background: fill wants detections with masks.")


def test_filled_crops_are_bounded_together(run_one_step):
    found = boxes(*[(10, 10, 20, 20)] * 20)
    params = {"border": "fill", "min_size_px": 4096}
    result = run_one_step("image/crop@v1", {"image": IMAGE, "detections": found}, params)
    message = "the 20 crops would have 335544320 pixels, more than 178956970."
    assert result.errors[0].message.startswith(message)
    params["border"] = "clip"
    assert not run_one_step("image/crop@v1", {"image": IMAGE, "detections": found}, params).errors

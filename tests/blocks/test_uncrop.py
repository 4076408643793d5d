from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import Image
from tests.blocks.crops import IMAGE, boxes, crop, made, masked


@pytest.mark.parametrize("params", [{}, {"padding": 0.4}, {"square": True, "border": "fill"}])
@pytest.mark.parametrize("where", [np.s_[0:9, 0:9], np.s_[50:60, 60:80], np.s_[20:31, 40:41]])
def test_cropping_and_putting_back_is_the_identity(run_one_step, params, where):
    found = masked(where)
    outputs = crop(run_one_step, found, **params)
    [part] = outputs["crops"]
    x0, y0, x1, y1 = part.parent.window_xyxy
    padded = np.pad(found.mask.to_dense()[0], 80)
    seen = padded[y0 + 80 : y1 + 80, x0 + 80 : x1 + 80]
    inside = sv.Detections(
        (found.xyxy - [x0, y0, x0, y0]).astype(np.float32),
        mask=MaskStack.from_rles([mask_to_rle(seen)], seen.shape),
    )
    back = made(run_one_step("detections/uncrop@v1", {"detections": [inside], "crops": [part]}))[
        "detections"
    ]
    assert back.xyxy.tolist() == found.xyxy.tolist()
    assert [r.counts.tolist() for r in to_rles(back)] == [r.counts.tolist() for r in to_rles(found)]
    assert back.data["crop_index"].tolist() == [0]


def test_the_way_back_goes_through_every_step(run_one_step):
    [part] = crop(run_one_step, boxes((10, 20, 30, 40)))["crops"]
    small = made(run_one_step("image/resize@v1", {"image": part}, {"scale": 2}))["image"]
    turned = made(run_one_step("image/rotate@v1", {"image": small}, {"degrees": 90}))["image"]
    found = boxes((0, 0, 4, 10))

    def uncrop(**params):
        given = {"detections": found, "crops": turned}
        return made(run_one_step("detections/uncrop@v1", given, params))["detections"]

    assert uncrop(to="parent").xyxy.tolist() == [[30, 0, 40, 4]]
    assert uncrop().xyxy.tolist() == [[25, 20, 30, 22]]


def test_what_does_not_belong_together_is_refused(run_one_step):
    def error(found, crops):
        result = run_one_step("detections/uncrop@v1", {"detections": found, "crops": crops})
        return result.errors[0].message

    one = boxes((0, 0, 1, 1))
    [part] = crop(run_one_step, boxes((10, 20, 30, 40)))["crops"]
    assert error([one], [part, part]).startswith("detections and crops belong together one by one")
    assert error(one, IMAGE).startswith("crop 0, 'cat.jpg', was cut from nothing")
    assert "the mask is 80x60 pixels, its picture 20x20" in error([masked(np.s_[0:9, 0:9])], [part])
    other = Image(IMAGE.pixels, "dog.jpg")
    given = {"image": other, "detections": one}
    [foreign] = made(run_one_step("image/crop@v1", given))["crops"]
    assert "of different pictures: 'cat.jpg', 'dog.jpg'" in error([one, one], [part, foreign])


def test_a_bad_box_in_a_crop_costs_its_own_row(run_one_step):
    [part] = crop(run_one_step, boxes((10, 20, 30, 40)))["crops"]
    found = boxes((0, 0, 1, 1), (2, 2, 3, 3))
    found.xyxy[0, 0] = np.nan
    back = made(run_one_step("detections/uncrop@v1", {"detections": [found], "crops": [part]}))
    assert back["detections"].xyxy.tolist() == [[12, 22, 13, 23]]


def test_nothing_comes_back_as_nothing(run_one_step):
    back = made(run_one_step("detections/uncrop@v1", {"detections": [], "crops": []}))
    assert len(back["detections"]) == 0

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import MissingExtraError
from sam2_blocks.hosts.cvat.shapes import (
    load_sdk,
    picture_to_image,
    rle_to_corners,
    rle_to_outlines,
    rle_to_shape,
    shape_to_prompt,
)
from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.rle import mask_to_rle, rle_iou, rle_to_mask

HW = (20, 40)


def mask(*boxes):
    pixels = np.zeros(HW, bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    return mask_to_rle(pixels)


ONE, TWO, ALL = mask((4, 2, 12, 10)), mask((4, 2, 12, 10), (20, 5, 40, 20)), mask((0, 0, 40, 20))


@pytest.mark.parametrize("rle", [ONE, TWO, ALL, mask((0, 0, 1, 1))])
def test_cvat_reads_the_same_mask(sdk, rle):
    from cvat_sdk.masks import decode_mask

    points = rle_to_shape(rle, "mask")
    decoded = decode_mask(points, image_width=40, image_height=20)
    assert np.array_equal(decoded, rle_to_mask(rle))
    assert rle_iou(shape_to_prompt("mask", points, HW), rle) == 1


def test_polygons_are_the_outlines_of_the_parts():
    rings = [np.array(points).reshape(-1, 2) for points in rle_to_outlines(TWO)]
    assert len(rings) == 2
    assert rle_iou(polygons_to_rle(rings, HW), TWO) == 1
    [largest] = [rle_to_shape(TWO, "polygon")]
    assert rle_iou(shape_to_prompt("polygon", largest, HW), mask((20, 5, 40, 20))) == 1


def test_a_rectangle_ends_at_the_far_edge_of_the_last_pixel():
    assert rle_to_corners(TWO) == rle_to_shape(TWO, "rectangle") == [4, 2, 40, 20]
    assert shape_to_prompt("rectangle", [4, 2, 40, 20], HW).box_xyxy.tolist() == [4, 2, 40, 20]


def test_an_empty_mask_is_no_shape():
    assert [rle_to_shape(mask(), kind) for kind in ("mask", "polygon", "rectangle")] == [None] * 3


def test_other_shapes_say_nothing():
    with pytest.raises(ValueError, match="a mask, a rectangle or a polygon, got 'ellipse'"):
        shape_to_prompt("ellipse", [1, 2, 3, 4], HW)


def test_frames_are_upright_and_rgb():
    picture = Pil.new("L", (8, 4), 200)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.info["exif"] = exif.tobytes()
    image = picture_to_image(picture, "frame.png")
    assert (image.id, image.pixels.shape, image.pixels.max()) == ("frame.png", (8, 4, 3), 200)


def test_without_the_sdk_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvat_sdk.auto_annotation", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[cvat\]'"):
        load_sdk()

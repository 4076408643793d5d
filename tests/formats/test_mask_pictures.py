from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.mask_pictures import cutout_png, indexed_png, mask_png
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.testing import sample_detections, sample_image


def opened(content):
    return Pil.open(io.BytesIO(content))


def test_indices_are_objects_and_the_smaller_is_on_top():
    large, small = np.zeros((2, 6, 8), bool)
    large[1:5, 1:7] = True
    small[2:4, 2:4] = True
    rles = [mask_to_rle(small), mask_to_rle(large)]
    picture = opened(indexed_png(rles, [1, 2], (6, 8)))
    wanted = np.where(small, 1, np.where(large, 2, 0))
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), wanted)
    assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    assert picture.convert("RGB").getpixel((2, 2)) == (128, 0, 0)


def test_many_objects_need_sixteen_bits():
    rles = to_rles(sample_detections())
    assert np.asarray(opened(indexed_png(rles, [1, 300], (24, 32)))).max() == 300
    with pytest.raises(ValueError, match="wants numbers of 1 to 65535 for masks, got 0"):
        indexed_png(rles, [0, 1], (24, 32))


def test_no_mask_is_a_black_picture():
    assert not np.asarray(opened(indexed_png([], [], (24, 32)))).any()


def test_a_mask_is_black_and_white():
    [rle, _] = to_rles(sample_detections())
    pixels = np.asarray(opened(mask_png(rle)))
    assert (pixels == 255).sum() == 120
    assert set(np.unique(pixels)) == {0, 255}


@pytest.mark.parametrize(("padding", "size"), [(0, (10, 12)), (2, (14, 16)), (99, (32, 24))])
def test_a_cut_out_has_the_pixels_of_the_object(padding, size):
    image, found = sample_image(), sample_detections()
    picture = opened(cutout_png(image, to_rles(found)[0], padding_px=padding))
    assert (picture.mode, picture.size) == ("RGBA", size)
    pixels = np.asarray(picture)
    assert (pixels[..., 3] == 255).sum() == 120
    assert np.array_equal(
        pixels[pixels[..., 3] > 0][:, :3], image.pixels[3:15, 2:12].reshape(-1, 3)
    )

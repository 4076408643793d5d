from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.filling import fill_masks, fill_parts, polygons_to_rle
from sam2_blocks.masks.rle import rle_to_mask

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)


def test_a_ring_without_corners_fills_nothing_and_disturbs_no_other():
    square = np.array([[1, 1], [3, 1], [3, 3], [1, 3]], float)
    nothing = np.zeros((0, 2))
    filled = polygons_to_rle([nothing, square, nothing], (4, 4))
    assert filled.counts.tolist() == polygons_to_rle([square], (4, 4)).counts.tolist()


def test_filling_follows_pixel_centres():
    triangle = np.array([[0, 0], [4, 0], [0, 4]])
    filled = rle_to_mask(polygons_to_rle([triangle], (4, 4)))
    assert filled.sum(axis=1).tolist() == [3, 2, 1, 0]


def test_filling_cuts_off_what_lies_outside():
    far = np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])
    assert rle_to_mask(polygons_to_rle([far], (3, 4))).all()
    assert not rle_to_mask(polygons_to_rle([far + 3e9], (3, 4))).any()
    assert not rle_to_mask(polygons_to_rle([], (3, 4))).any()


@pytest.mark.parametrize("corner", [np.nan, np.inf, -np.inf, 1e300, 2.0**52])
def test_corners_that_no_picture_has_are_refused(corner):
    ring = SQUARE.copy()
    ring[1, 0] = corner
    with pytest.raises(ValueError, match="corners of polygons must be finite and nearer than"):
        polygons_to_rle([ring], (4, 4))


def test_rings_of_one_part_cut_holes_and_parts_add_up():
    hole = np.array([[1, 1], [3, 1], [3, 3], [1, 3]], float)
    one = rle_to_mask(fill_parts([[SQUARE, hole]], (4, 4)))
    two = rle_to_mask(fill_parts([[SQUARE], [hole]], (4, 4)))
    assert (one.sum(), two.sum()) == (12, 16)


def test_masks_filled_together_are_as_each_alone():
    masks = [[[SQUARE]], [], [[SQUARE + 1, SQUARE], [SQUARE + 2]], [[SQUARE]]]
    sizes = [(4, 4), (2, 3), (7, 5), (1, 1)]  # to the last pixel, to none, and from the first
    for parts, size, filled in zip(masks, sizes, fill_masks(masks, sizes), strict=True):
        assert filled.size == size
        assert filled.counts.tolist() == fill_parts(parts, size).counts.tolist()
        assert filled.counts.sum() == size[0] * size[1]

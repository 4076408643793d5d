from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_blocks.masks import many
from sam2_blocks.masks.many import tight_crops
from sam2_blocks.masks.rle import mask_to_rle, rle_crop, rles_to_boxes_xyxy

MASKS = st.tuples(st.integers(0, 6), st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda nhw: arrays(bool, nhw)
)


def one_by_one(rles):
    """The reference: boxes and crops mask by mask."""
    boxes = rles_to_boxes_xyxy(rles)
    crops = [rle_crop(rle, box) for rle, box in zip(rles, boxes, strict=True)]
    return boxes.tolist(), [crop.counts.tolist() for crop in crops]


def together(rles, hw):
    made = tight_crops(rles, hw)
    return made.boxes_xyxy.tolist(), [counts.tolist() for counts in made.counts]


@given(MASKS)
def test_all_at_once_is_what_one_by_one_is(masks):
    rles = [mask_to_rle(mask) for mask in masks]
    assert together(rles, masks.shape[1:]) == one_by_one(rles)


@pytest.mark.parametrize("at_once", [1, 2, 3, 256])
def test_however_many_are_taken_at_once(monkeypatch, at_once):
    monkeypatch.setattr(many, "MASKS_AT_ONCE", at_once)
    masks = np.random.default_rng(2).random((7, 30, 40)) > 0.7
    masks[[1, 4]] = False  # one that is empty between others
    masks[2] = True  # one that ends where the next begins
    masks[5, :, 10:14] = True
    rles = [mask_to_rle(mask) for mask in masks]
    assert together(rles, (30, 40)) == one_by_one(rles)


def test_no_masks():
    made = tight_crops([], (5, 6))
    assert made.boxes_xyxy.shape == (0, 4)
    assert made.counts == []


def test_counts_are_of_32_bits_as_supervision_has_them():
    rle = mask_to_rle(np.eye(4, dtype=bool))
    assert tight_crops([rle], (4, 4)).counts[0].dtype == np.int32

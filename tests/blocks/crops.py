"""A picture, boxes and masks on it, and its crops, for tests of what cuts and puts back."""

from __future__ import annotations

import numpy as np
import supervision as sv

from sam2_blocks import rows_to_detections
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import Image

HW = (60, 80)
IMAGE = Image(np.random.default_rng(0).integers(0, 256, (*HW, 3), np.uint8), "cat.jpg")


def made(result):
    assert not result.errors, result.errors
    return result.outputs


def boxes(*rows):
    return rows_to_detections([list(row) for row in rows])


def crop(run_one_step, found, **params):
    return made(run_one_step("image/crop@v1", {"image": IMAGE, "detections": found}, params))


def masked(*slices):
    masks = np.zeros((len(slices), *HW), bool)
    for mask, where in zip(masks, slices, strict=True):
        mask[where] = True
    rles = [mask_to_rle(mask) for mask in masks]
    stack = MaskStack.from_rles(rles, HW)
    tight = np.array([[w[1].start, w[0].start, w[1].stop - 1, w[0].stop - 1] for w in slices])
    return sv.Detections(tight.astype(np.float32), mask=stack)

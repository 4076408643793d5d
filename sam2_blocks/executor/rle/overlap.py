"""Masks that claim a pixel together: it goes to the one surest of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sam2_blocks.executor.rle.upsample import Crop, upsample_full
from sam2_blocks.masks.rle import mask_to_rle, rles_to_boxes_xyxy
from sam2_blocks.values import Hw, Int64Array, Rle


def logits_to_disjoint_rles(
    logits: Tensor, image_hw: Hw, *, threshold: float = 0.0
) -> tuple[list[Rle], Int64Array]:
    """Upsample, leave each pixel to the highest logit, threshold and run-length encode.

    Needs two full-size maps, however many masks there are.

    Args:
        logits: float32, (N, h, w), on any device.
        image_hw: size of the original picture in pixels.
        threshold: a pixel belongs to a mask where its logit is above.

    Returns:
        N masks at original size, no two of which share a pixel, and their tight boxes.

    Source: sam2 ``modeling/sam2_base.py: _apply_non_overlapping_constraints``.
    """
    height, width = image_hw
    whole = Crop(0, 0, 0, width, height)
    highest = torch.full(image_hw, threshold, device=logits.device)
    owner = torch.full(image_hw, -1, dtype=torch.int32, device=logits.device)
    for index, mask in enumerate(logits):
        full = upsample_full(mask, whole, image_hw)
        owner[full > highest] = index
        highest = torch.maximum(highest, full)
    owners = owner.cpu().numpy()
    rles = [mask_to_rle(owners == index) for index in range(len(logits))]
    return rles, np.asarray(rles_to_boxes_xyxy(rles), np.int64)

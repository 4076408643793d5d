"""Connected components on the device, without a compiled extension: small holes and specks.

The official predictor needs sam2's CUDA extension for this and silently skips it otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

FILL_LOGIT = 10.0  # how far from the threshold changed pixels are put, as in sam2


def clean_logits(
    logits: Tensor, *, threshold: float, max_hole_area: int, max_sprinkle_area: int
) -> Tensor:
    """Fill small holes and remove small specks, counted in low-resolution pixels.

    Args:
        logits: float32, (N, h, w).
        threshold: a pixel belongs to the mask where its logit is above.
        max_hole_area: background components up to this many pixels are filled; 0 fills none.
        max_sprinkle_area: foreground components up to this many pixels go; 0 removes none.

    Source: sam2 ``utils/transforms.py: postprocess_masks``.
    """
    cleaned = logits
    if max_hole_area > 0:
        areas = component_areas(logits <= threshold)
        is_hole = (areas > 0) & (areas <= max_hole_area)
        cleaned = torch.where(is_hole, threshold + FILL_LOGIT, cleaned)
    if max_sprinkle_area > 0:
        areas = component_areas(logits > threshold)
        is_speck = (areas > 0) & (areas <= max_sprinkle_area)
        cleaned = torch.where(is_speck, threshold - FILL_LOGIT, cleaned)
    return cleaned


def component_areas(masks: Tensor) -> Tensor:
    """Return for each pixel the area of its 8-connected component, 0 on background.

    Every pixel starts with its own label and takes the largest label around it, then follows
    its label to the pixel that had it first, which doubles the reach with each round.

    Args:
        masks: bool, (N, h, w), h * w below 2 ** 24.

    Returns:
        int64, (N, h, w).
    """
    n, h, w = masks.shape
    inside = masks.flatten(1)
    own = torch.arange(1, h * w + 1, device=masks.device)
    labels = torch.where(inside, own, 0)  # (N, h * w), 0 is background
    while True:
        spread = F.max_pool2d(labels.view(n, 1, h, w).float(), 3, stride=1, padding=1)
        reached = torch.where(inside, spread.view(n, -1).long(), 0)
        followed = torch.cat([reached.new_zeros(n, 1), reached], 1).gather(1, reached)
        if torch.equal(followed, labels):
            break
        labels = followed
    counts = torch.zeros(n, h * w + 1, dtype=torch.int64, device=masks.device)
    counts.scatter_add_(1, labels, inside.long())
    return (counts.gather(1, labels) * inside).view(n, h, w)

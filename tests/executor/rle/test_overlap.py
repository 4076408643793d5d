"""A pixel belongs to one mask: as if all logits lay upon each other at full size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from sam2_blocks.executor.rle.overlap import logits_to_disjoint_rles
from sam2_blocks.masks.rle import rle_to_mask


@pytest.mark.parametrize("threshold", [0.0, 0.7])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_surest_mask_has_the_pixel(count, threshold):
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(count, 16, 16, generator=generator) * 3
    rles, boxes = logits_to_disjoint_rles(logits, (150, 130), threshold=threshold)
    assert len(rles) == len(boxes) == count
    if not count:
        return
    full = F.interpolate(logits[None], (150, 130), mode="bilinear")[0].numpy()
    masks = np.stack([rle_to_mask(rle) for rle in rles])
    owners = np.where(full.max(0) > threshold, full.argmax(0), -1)
    assert np.array_equal(masks, owners == np.arange(count)[:, None, None])
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()

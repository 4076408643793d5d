"""Regions against the same regions of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_blocks.executor.rle.upsample import Crop, crops_are_exact, upsample_crop, upsample_full


@pytest.mark.skipif(not crops_are_exact((256, 256)), reason="this CPU has no fused multiply-add")
@settings(max_examples=20, deadline=None)
@given(
    image_hw=st.tuples(st.integers(1, 1500), st.integers(255, 1500)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    grid=st.sampled_from([(256, 256), (64, 64), (31, 77)]),
)
def test_crops_equal_the_same_region_of_the_whole(image_hw, corners, grid):
    height, width = image_hw
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    crop = Crop(
        mask=0,
        x0=int(x0 * (width - 1)),
        y0=int(y0 * (height - 1)),
        x1=int(x1 * (width - 1)) + 1,
        y1=int(y1 * (height - 1)) + 1,
    )
    logits = torch.randn(grid, generator=torch.Generator().manual_seed(0)) * 20
    assert torch.equal(upsample_crop(logits, crop, image_hw), upsample_full(logits, crop, image_hw))

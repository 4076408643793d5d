"""Lean run lengths against the obvious way: upsample everything, threshold, encode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_blocks.executor.rle import postprocess
from sam2_blocks.executor.rle.postprocess import logits_to_rles

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


def reference(logits: torch.Tensor, image_hw, threshold: float = 0.0) -> np.ndarray:
    """Masks (N, H, W) as the official predictor makes them.

    One channel each: given three, ATen on one thread rounds the last bit in another way.
    """
    full = F.interpolate(logits[:, None], image_hw, mode="bilinear", align_corners=False)
    return (full[:, 0] > threshold).cpu().numpy()


def reference_counts(mask: np.ndarray) -> list[int]:
    """Column-major run lengths, the slow and obvious way."""
    counts, value, run = [], False, 0
    for pixel in mask.T.flat:
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return [*counts, run]


def reference_box(mask: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0]


def smooth_logits(seed: int, n: int = 3, grid: int = 64) -> torch.Tensor:
    """Blobs that cross the threshold smoothly, some of them cut by the border."""
    noise = torch.randn(1, n, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (grid, grid), mode="bicubic", align_corners=False)[0] * 5


def assert_exact(logits: torch.Tensor, image_hw, threshold: float = 0.0) -> None:
    rles, boxes = logits_to_rles(logits, image_hw, threshold=threshold)
    masks = reference(logits, image_hw, threshold)
    assert [rle.counts.tolist() for rle in rles] == [reference_counts(mask) for mask in masks]
    assert boxes.tolist() == [reference_box(mask) for mask in masks]
    assert all(rle.size == tuple(image_hw) for rle in rles)


@settings(max_examples=25, deadline=None)
@given(image_hw=sizes, seed=st.integers(0, 1000), threshold=st.sampled_from([0.0, 1.5, -2.0]))
def test_equals_the_obvious_way(image_hw, seed, threshold):
    assert_exact(smooth_logits(seed), image_hw, threshold)


@settings(max_examples=15, deadline=None)
@given(image_hw=sizes, seed=st.integers(0, 1000))
def test_equals_the_obvious_way_on_noise(image_hw, seed):
    noise = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(seed))
    assert_exact(noise, image_hw)


@pytest.mark.parametrize("threshold", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("image_hw", [(480, 640), (97, 300), (1, 1), (8, 8)])
def test_flat_logits_are_full_or_empty(image_hw, threshold):
    levels = torch.tensor([threshold - 1, threshold, threshold + 1])
    logits = levels[:, None, None].expand(3, 8, 8).contiguous()
    assert_exact(logits, image_hw, threshold)


def test_stripes_over_the_full_height_join_across_columns():
    logits = torch.full((1, 4, 4), -1.0)
    logits[:, :, 1:3] = 1.0
    assert_exact(logits, (6, 8))
    [rle], _ = logits_to_rles(logits, (6, 8))
    assert len(rle.counts) == 3


def test_no_masks():
    rles, boxes = logits_to_rles(torch.zeros(0, 64, 64), (480, 640))
    assert rles == []
    assert boxes.shape == (0, 4)


def test_batches_of_crops_do_not_change_anything(monkeypatch):
    logits = smooth_logits(1, n=6)
    together, boxes = logits_to_rles(logits, (300, 400))
    monkeypatch.setattr(postprocess, "EDGE_BYTES", 1)
    alone, boxes_alone = logits_to_rles(logits, (300, 400))
    assert [a.counts.tolist() for a in together] == [b.counts.tolist() for b in alone]
    assert boxes.tolist() == boxes_alone.tolist()


def test_full_upsampling_is_the_fallback(monkeypatch):
    monkeypatch.setattr(postprocess, "crops_are_exact", lambda low_res_hw: False)
    assert_exact(smooth_logits(2), (311, 173))


def test_a_mask_of_a_large_picture_is_exact():
    logits = smooth_logits(5, n=1, grid=256)
    [rle], _ = logits_to_rles(logits, (2160, 3840))
    values = np.arange(len(rle.counts)) % 2 == 1
    mask = np.repeat(values, rle.counts).reshape(rle.size, order="F")
    assert np.array_equal(mask, reference(logits, (2160, 3840))[0])

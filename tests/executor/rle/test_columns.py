"""The way of CUDA, on a CPU: all columns together, and what is too close to call done again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_blocks.executor.rle import columns, postprocess
from sam2_blocks.executor.rle.columns import deviation, find_column_runs, interpolate_columns
from sam2_blocks.executor.rle.postprocess import find_crops, logits_to_rles
from sam2_blocks.executor.rle.upsample import crops_are_exact, upsample_full
from tests.executor.rle.test_postprocess import assert_exact, reference, smooth_logits

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


@pytest.fixture(autouse=True, scope="module")
def together() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "_is_bound_by_launches", lambda device: True)
        yield


@pytest.fixture
def inexact_device(monkeypatch) -> Iterator[None]:
    """A device that rounds interpolated values elsewhere than its own ``F.interpolate``."""

    def interpolate(*args):
        values = interpolate_columns(*args)
        noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) - 0.5
        return values + noise * 1e-6

    monkeypatch.setattr(columns, "interpolate_columns", interpolate)
    deviation.cache_clear()
    yield
    deviation.cache_clear()


@pytest.fixture
def redone(monkeypatch) -> list[int]:
    """The masks that are done again."""
    masks: list[int] = []

    def upsample(logits, crop, image_hw):
        masks.append(crop.mask)
        return upsample_full(logits, crop, image_hw)

    monkeypatch.setattr(postprocess, "_may_crop", lambda logits, image_hw: False)
    monkeypatch.setattr(postprocess, "upsample_full", upsample)
    return masks


@settings(max_examples=15, deadline=None)
@given(
    image_hw=sizes,
    seed=st.integers(0, 1000),
    threshold=st.sampled_from([0.0, 1.5, -2.0]),
    grid=st.sampled_from([64, 17]),
)
def test_equals_the_obvious_way(image_hw, seed, threshold, grid):
    assert_exact(smooth_logits(seed, grid=grid), image_hw, threshold)


@settings(max_examples=15, deadline=None)
@given(image_hw=sizes, seed=st.integers(0, 1000))
def test_equals_the_obvious_way_on_noise(image_hw, seed):
    assert_exact(torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(seed)), image_hw)


def test_one_picture_of_every_kind_of_mask():
    """Empty, full, one pixel, a corner, a stripe and an ordinary mask, in one batch."""
    logits = torch.full((6, 64, 64), -3.0)
    logits[1] = 3.0
    logits[2, 30, 40] = 3.0
    logits[3, -4:, :5] = 3.0
    logits[4, :, 10:20] = 3.0
    logits[5] = smooth_logits(3)[0]
    assert_exact(logits, (853, 1279))


@pytest.mark.parametrize("threshold", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("image_hw", [(480, 640), (97, 300), (1, 1)])
def test_flat_logits_are_full_or_empty(image_hw, threshold):
    levels = torch.tensor([threshold - 1, threshold, threshold + 1])
    assert_exact(levels[:, None, None].expand(3, 8, 8).contiguous(), image_hw, threshold)


@pytest.mark.parametrize("columns_at_once", [1, 7, 250])
def test_cutting_masks_into_batches_changes_nothing(monkeypatch, columns_at_once):
    monkeypatch.setattr(columns, "BATCH_BYTES", columns.PIXEL_BYTES * 300 * columns_at_once)
    assert_exact(smooth_logits(1, n=6), (300, 400))


def test_no_masks():
    rles, boxes = logits_to_rles(torch.zeros(0, 64, 64), (480, 640))
    assert rles == []
    assert boxes.shape == (0, 4)


@pytest.mark.skipif(not crops_are_exact((64, 64)), reason="this CPU has no fused multiply-add")
def test_a_device_that_rounds_alike_has_no_guard_band():
    assert deviation(torch.device("cpu"), (64, 64)) == 0


def test_the_guard_band_repairs_a_device_that_rounds_differently(inexact_device, redone):
    """Wherever it matters: on a plateau at the threshold half of the pixels would flip."""
    logits = smooth_logits(4, n=4)
    logits[2, 10:40, 20:50] = 0.0
    assert 0 < deviation(torch.device("cpu"), (64, 64)) < 1e-6
    assert_exact(logits, (480, 640))
    assert 2 in redone


def test_without_the_guard_band_such_a_device_is_wrong(inexact_device, monkeypatch):
    monkeypatch.setattr(columns, "SAFETY", 0.0)
    logits = torch.full((1, 64, 64), -1.0)
    logits[:, 10:40, 20:50] = 0.0
    logits[:, (5, 60), (5, 60)] = 1.0  # corners of the region looked at
    [rle], _ = logits_to_rles(logits, (480, 640))
    assert rle.counts[1::2].sum() > 1000 + reference(logits, (480, 640)).sum()


def test_only_masks_in_the_guard_band_are_done_again(inexact_device, redone):
    """Steps of whole pixels from -5 to 5 have no value near 0; a value at 0 has."""
    logits = torch.full((3, 64, 64), -5.0)
    logits[:, 10:40, 20:50] = 5.0
    logits[1, 40:45, 20:50] = 0.0
    assert_exact(logits, (128, 128))
    assert redone == [1]


def test_the_guard_band_follows_the_threshold(inexact_device):
    logits = torch.full((1, 64, 64), -5.0)
    logits[:, 10:40, 20:50] = 1.5
    logits[:, (5, 60), (5, 60)] = 2.0
    crops = find_crops(logits, (128, 128), threshold=1.5)
    *_, owners, unsure = find_column_runs(logits, crops, (128, 128), 1.5)
    assert unsure == crops
    assert len(owners) == 0 < len(unsure)

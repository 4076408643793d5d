from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks.executor.rle.components import clean_logits, component_areas

EIGHT_CONNECTED = np.ones((3, 3))


def expected_areas(mask: np.ndarray) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
    return np.where(mask, np.bincount(labels.ravel())[labels], 0)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.45, 0.6, 1.0])
def test_areas_equal_scipy(density):
    masks = torch.rand(3, 40, 33, generator=torch.Generator().manual_seed(0)) < density
    areas = component_areas(masks).numpy()
    for mask, area in zip(masks.numpy(), areas, strict=True):
        assert np.array_equal(area, expected_areas(mask))


def test_a_spiral_is_one_component():
    mask = np.zeros((41, 41), bool)
    for inset in range(0, 20, 2):
        mask[inset, max(inset - 2, 0) : 41 - inset] = True
        mask[inset : 41 - inset, 40 - inset] = True
        mask[40 - inset, inset : 41 - inset] = True
        mask[inset + 2 : 41 - inset, inset] = True
    [area] = component_areas(torch.from_numpy(mask[None]))
    assert np.array_equal(area.numpy(), expected_areas(mask))


def test_diagonal_neighbours_belong_together():
    mask = torch.eye(5, dtype=torch.bool)[None]
    assert component_areas(mask).sum() == 5 * 5


def mask_with_hole_and_speck() -> torch.Tensor:
    logits = torch.full((1, 12, 12), -3.0)
    logits[0, 1:8, 1:8] = 3.0
    logits[0, 3:5, 3:5] = -3.0  # a hole of 4
    logits[0, 10, 9:12] = 3.0  # a speck of 3
    return logits


@pytest.mark.parametrize(
    ("holes", "specks", "foreground"),
    [(0, 0, 45 + 3), (3, 2, 45 + 3), (4, 0, 49 + 3), (0, 3, 45), (4, 3, 49)],
)
def test_small_holes_are_filled_and_small_specks_removed(holes, specks, foreground):
    logits = mask_with_hole_and_speck()
    cleaned = clean_logits(logits, threshold=0.0, max_hole_area=holes, max_sprinkle_area=specks)
    assert (cleaned > 0).sum() == foreground


def test_changed_pixels_lie_ten_logits_from_the_threshold():
    logits = mask_with_hole_and_speck()
    cleaned = clean_logits(logits, threshold=1.0, max_hole_area=4, max_sprinkle_area=3)
    assert cleaned[0, 3, 3] == 11.0
    assert cleaned[0, 10, 10] == -9.0
    assert torch.equal(logits, mask_with_hole_and_speck())

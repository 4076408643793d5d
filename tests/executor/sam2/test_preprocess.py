from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2 import preprocess
from sam2_blocks.executor.sam2.preprocess import pictures_to_batch, pixels_to_input

CPU = torch.device("cpu")
SHAPES = [(60, 80, 3), (60, 80, 3), (31, 97, 3), (60, 80, 3), (200, 150, 3), (200, 150, 3)]


@pytest.mark.parametrize("group_bytes", [2**30, 2 * 60 * 80 * 3 * 4, 1])
def test_pictures_together_equal_pictures_alone(monkeypatch, group_bytes):
    monkeypatch.setattr(preprocess, "GROUP_BYTES", group_bytes)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in SHAPES]
    together = pictures_to_batch(pictures, 96, CPU)
    assert together.shape == (6, 3, 96, 96)
    for one, pixels in zip(together, pictures, strict=True):
        assert torch.equal(one, pixels_to_input(pixels, 96, CPU))


def test_neighbours_of_equal_size_are_resized_together(monkeypatch):
    sizes: list[int] = []
    resize = preprocess._resize
    monkeypatch.setattr(
        preprocess,
        "_resize",
        lambda pixels, size: sizes.append(len(pixels)) or resize(pixels, size),
    )
    pictures_to_batch([np.zeros(shape, np.uint8) for shape in SHAPES], 32, CPU)
    assert sizes == [2, 1, 1, 2]


@pytest.mark.parametrize("shape", [(1, 60, 80, 3), (2, 333, 200, 3), (1, 1500, 1100, 3)])
def test_channels_resized_by_themselves_are_those_resized_together(monkeypatch, shape):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    together = preprocess._resize(pixels, 512)
    monkeypatch.setattr(preprocess, "CHANNEL_BYTES", 0)
    assert torch.equal(preprocess._resize(pixels, 512), together)

"""Frames are resized as the video predictor does, and named unlike pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from sam2_blocks.executor.sam2.encode import embed_images, embedding_key
from sam2_blocks.executor.sam2.frames import (
    embed_frame,
    frame_key,
    frames_to_batch,
    unnamed_key,
)
from sam2_blocks.executor.sam2.preprocess import MEAN, STD
from sam2_blocks.values import Image


@pytest.fixture
def frame() -> Image:
    return Image(np.random.default_rng(0).integers(0, 255, (37, 61, 3), np.uint8), id="f")


def test_pixels_are_resized_by_pillow_and_normalised_in_float32(frame, nano):
    side = nano.model.image_size
    resized = np.array(Pil.fromarray(frame.pixels).resize((side, side)))
    expected = torch.from_numpy(resized / 255.0).permute(2, 0, 1).float()
    expected -= torch.tensor(MEAN)[:, None, None]
    expected /= torch.tensor(STD)[:, None, None]
    assert torch.equal(frames_to_batch([frame.pixels, frame.pixels], nano.model)[1], expected)


def test_a_frame_is_no_picture(frame, nano):
    key = frame_key(frame, nano.model)
    assert key != embedding_key(frame, nano.model)
    assert key.startswith(f"{nano.model.key}/frame1/")


def test_every_byte_is_normalised_as_officially(nano):
    """By a division in float64 that is rounded to float32."""
    side = nano.model.image_size
    pixels = np.resize(np.arange(256, dtype=np.uint8), (side, side))
    expected = torch.from_numpy(pixels / 255.0).float()
    found = frames_to_batch([np.dstack([pixels] * 3)], nano.model)
    for channel in range(3):
        official = (expected - MEAN[channel]) / STD[channel]
        assert torch.equal(found[0, channel], official)


def test_a_frame_nobody_looks_up_is_not_hashed(frame, nano):
    assert unnamed_key(nano.model) == f"{nano.model.key}/frame1/unnamed"


def test_features_are_without_the_part_that_says_nothing_is_remembered(frame, nano):
    """On pixels that both ways of resizing leave alone, they differ by that part alone."""
    flat = Image(np.full((64, 64, 3), 90, np.uint8))
    [picture] = embed_images(nano.model, [flat], ["a"])
    found = embed_frame(nano.model, flat, key="b")
    nothing = nano.model.network.no_mem_embed.view(1, -1, 1, 1)
    assert torch.allclose(picture.image_embed, found.image_embed + nothing, atol=1e-5)
    assert found.image_hw == (64, 64)
    assert found.image_embed.untyped_storage().nbytes() == found.image_embed.nbytes

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2 import encode
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Image

PICTURE = sample_image()


@pytest.mark.parametrize(
    "other",
    [
        Image(PICTURE.pixels.transpose(1, 0, 2)),
        Image(np.ascontiguousarray(PICTURE.pixels[:, ::-1])),
        Image(PICTURE.pixels ^ np.uint8(1)),
    ],
)
def test_a_key_names_the_pixels_and_their_shape(nano, other):
    key = encode.embedding_key(PICTURE, nano.model)
    assert encode.embedding_key(other, nano.model) != key
    assert encode.embedding_key(Image(PICTURE.pixels.copy(), "other.png"), nano.model) == key


def test_a_key_names_the_model(nano):
    other = replace(nano.model, key="other")
    assert encode.embedding_key(PICTURE, other).startswith("other/")


def test_keys_of_many_pictures_are_in_their_order(nano):
    pictures = [Image(np.full((4, 4, 3), i, np.uint8)) for i in range(5)]
    one_by_one = [encode.embedding_key(picture, nano.model) for picture in pictures]
    assert encode.embedding_keys(pictures, nano.model) == one_by_one
    assert encode.embedding_keys([], nano.model) == []


def test_feature_maps_come_finest_first(nano):
    size = nano.model.image_size
    levels = encode.encode_batch(nano.model, torch.zeros(2, 3, size, size))
    shapes = [tuple(level.shape) for level in levels]
    (_, c, h, w) = shapes[-1]
    assert shapes == [(2, c // 8, h * 4, w * 4), (2, c // 4, h * 2, w * 2), (2, c, h, w)]


def test_the_budget_of_bytes_bounds_a_batch(nano, monkeypatch):
    assert 1 <= encode.batch_size(nano.model) <= encode.MAX_BATCH
    monkeypatch.setattr(encode, "BATCH_BYTES", {"cpu": 1})
    assert encode.batch_size(nano.model) == 1
    monkeypatch.setattr(encode, "BATCH_BYTES", {"cpu": 2**60})
    assert encode.batch_size(nano.model) == encode.MAX_BATCH

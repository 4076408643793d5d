from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import encode
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Image

PICTURE = sample_image()
PATIENCE_S = 60


@pytest.fixture(scope="module")
def two_cores() -> Sam2Executor:
    """An executor of two cores that keeps nothing, whatever this machine has."""
    cores = torch.get_num_threads()
    torch.set_num_threads(2)
    loaded = load("nano", device="cpu", cache_bytes=0)
    torch.set_num_threads(cores)
    return loaded


def picture(seed: int) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8), f"{seed}.png")


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


def test_pictures_that_come_together_are_encoded_side_by_side_on_one_core_each(
    two_cores, monkeypatch
):
    plain, seen, both = encode.encode_batch, [], threading.Barrier(2)

    def encode_batch(model, batch, encoder=None):
        both.wait(PATIENCE_S)  # for another one that is encoded at the same time
        seen.append((threading.current_thread().name, torch.get_num_threads(), len(batch)))
        return plain(model, batch, encoder)

    monkeypatch.setattr(encode, "encode_batch", encode_batch)
    two_cores.embed([picture(seed) for seed in range(4)])
    assert {(cores, count) for _, cores, count in seen} == {(1, 1)}
    assert len({name for name, *_ in seen}) == 2


def test_an_embedding_does_not_depend_on_those_that_come_with_it(two_cores):
    one, two, three = (picture(seed) for seed in range(3))
    levels = []
    for pictures in ([one, two], [three, two, one], [two, three, picture(9), one]):
        [found] = [e for e in two_cores.embed(pictures) if e.image_id == one.id]
        levels.append((found.image_embed, *found.high_res_feats))
    for others in levels[1:]:
        assert all(torch.equal(*pair) for pair in zip(levels[0], others, strict=True))
    [alone] = two_cores.embed([one])  # with all cores
    for level, other in zip(levels[0], (alone.image_embed, *alone.high_res_feats), strict=True):
        torch.testing.assert_close(level, other, atol=1e-4, rtol=0)
        assert level.std() > 0.01


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_the_recorded_encoder_gives_the_same_bits(mode):
    model = load("nano", device="cpu", backend="torch", mode=mode).model
    batch = torch.randn(1, 3, model.image_size, model.image_size)
    expected = encode.encode_batch(model, batch)
    for _ in range(3):
        found = encode.encode_batch(model, batch, model.recorded_encoder)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_an_error_of_one_picture_is_told(two_cores, monkeypatch):
    monkeypatch.setattr(encode, "encode_batch", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        two_cores.embed([picture(0), picture(1)])


@pytest.mark.parametrize(
    ("count", "cores", "batch", "apart"),
    [
        (8, 2, 16, 8),
        (3, 2, 16, 3),
        (1, 2, 16, 1),  # the others are known already
        (8, 1, 16, 0),
        (8, 4, 16, 8),
        (8, 5, 16, 0),  # many cores are not slower on one after the other
        (8, 2, 3, 8),  # as of the public checkpoints
        (7, 2, 3, 6),  # the last one has all cores
        (1, 2, 3, 0),
        (8, 4, 3, 0),  # no memory for one a core
    ],
)
def test_how_many_pictures_have_a_core_each(two_cores, monkeypatch, count, cores, batch, apart):
    monkeypatch.setattr(encode, "batch_size", lambda model: batch)
    assert encode.count_apart(two_cores.model, count, cores) == apart


def test_a_picture_that_comes_alone_has_all_cores(two_cores, monkeypatch):
    plain, seen = encode.encode_batch, []

    def encode_batch(model, batch, encoder=None):
        seen.append(threading.current_thread() is threading.main_thread())
        return plain(model, batch, encoder)

    monkeypatch.setattr(encode, "encode_batch", encode_batch)
    two_cores.embed([picture(0)])
    two_cores.embed([picture(1), picture(1)])  # one of them is known when the other is
    assert seen == [True, False]


def test_only_small_pictures_of_plain_torch_are_encoded_ahead(two_cores, monkeypatch):
    assert encode.encodes_ahead(two_cores.model, 2)
    assert not encode.encodes_ahead(two_cores.model, 1)
    assert not encode.encodes_ahead(replace(two_cores.model, backend="openvino"), 2)
    monkeypatch.setattr(encode, "batch_size", lambda model: 3)
    assert not encode.encodes_ahead(two_cores.model, 2)


def test_only_what_plain_torch_computes_is_encoded_side_by_side(two_cores):
    assert encode.count_apart(replace(two_cores.model, backend="openvino"), 8, 2) == 0
    assert encode.count_apart(replace(two_cores.model, compile="encoder"), 8, 2) == 0
    assert encode.count_apart(replace(two_cores.model, packages={1: Path("1.pt2")}), 8, 2) == 0


def test_large_pictures_are_encoded_side_by_side_and_the_last_one_on_all_cores(
    two_cores, monkeypatch
):
    plain, seen = encode.encode_batch, []

    def encode_batch(model, batch, encoder=None):
        seen.append((threading.current_thread() is threading.main_thread(), encoder))
        return plain(model, batch, encoder)

    monkeypatch.setattr(encode, "encode_batch", encode_batch)
    monkeypatch.setattr(encode, "batch_size", lambda model: 3)
    tidied: list[int] = []
    monkeypatch.setattr(encode, "tidy", lambda: tidied.append(1))
    pictures = [picture(seed) for seed in range(3)]
    found = two_cores.embed(pictures)
    assert tidied == [1]
    assert [embedding.image_id for embedding in found] == [one.id for one in pictures]
    # To record a large one takes longer than it saves.
    assert sorted(seen, key=str) == [(False, None), (False, None), (True, None)]

"""The tiers behind a real model, as `load` sets them up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_blocks.executor import CACHE_DIR_VARIABLE
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.values import Embedding, Image, PromptSet

PROMPTS = PromptSet.from_boxes([[10, 10, 80, 60], [30, 5, 100, 70]])


def picture(seed: int) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
    return Image(pixels, id=f"picture {seed}")


PICTURES = [picture(seed) for seed in range(3)]


def assert_same(found: Embedding, expected: Embedding) -> None:
    for name in ("image_id", "image_hw", "key", "spec"):
        assert getattr(found, name) == getattr(expected, name)
    levels = zip(
        (found.image_embed, *found.high_res_feats),
        (expected.image_embed, *expected.high_res_feats),
        strict=True,
    )
    for one, other in levels:
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
        assert not one.is_inference()


def hits(executor: Sam2Executor) -> dict[str, int]:
    return {name: tier.hits for name, tier in executor.cache_stats().tiers.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_tier_gives_the_computed_embedding_bit_for_bit(tmp_path, dtype, load_nano):
    options = {"dtype": dtype, "cache_dir": tmp_path}
    executor = load_nano(seed=7, cache_entries=1, host_cache_bytes=2**30, **options)
    computed = executor.embed(PICTURES)
    spilled = executor.embed(PICTURES)
    assert hits(executor) == {"device": 1, "host": 2, "disk": 0}
    executor.flush_cache()
    restarted = load_nano(seed=7, **options)
    restored = restarted.embed(PICTURES)
    assert hits(restarted) == {"device": 0, "disk": 3}
    for expected, *found in zip(computed, spilled, restored, strict=True):
        for one in found:
            assert_same(one, expected)
    [expected_masks] = executor.segment([(computed[0], PROMPTS)])
    [masks] = restarted.segment([(restored[0], PROMPTS)])
    assert np.array_equal(masks.low_res_logits, expected_masks.low_res_logits)


def test_a_name_is_never_stored_only_pixels_count(tmp_path, load_nano):
    executor = load_nano(seed=7, cache_dir=tmp_path)
    executor.embed([PICTURES[0]])
    executor.flush_cache()
    [renamed] = load_nano(seed=7, cache_dir=tmp_path).embed([replace(PICTURES[0], id="renamed")])
    assert renamed.image_id == "renamed"


def test_other_weights_find_nothing(tmp_path, load_nano):
    executor = load_nano(seed=7, cache_dir=tmp_path)
    executor.embed(PICTURES)
    executor.flush_cache()
    other = load_nano(seed=8, cache_dir=tmp_path)
    other.embed(PICTURES)
    assert hits(other)["disk"] == 0


def test_the_environment_may_name_the_folder(tmp_path, monkeypatch, load_nano):
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "kept"))
    executor = load_nano(seed=7)
    executor.embed(PICTURES)
    executor.flush_cache()
    assert len(list((tmp_path / "kept").iterdir())) == len(PICTURES)


def test_a_cache_of_no_bytes_keeps_nothing_unless_told_where(tmp_path, monkeypatch, load_nano):
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path))
    assert list(load_nano(seed=7, cache_bytes=0).cache_stats().tiers) == ["device"]
    executor = load_nano(seed=7, cache_bytes=0, cache_dir=tmp_path, disk_cache_bytes=2**23)
    executor.embed(PICTURES)
    executor.flush_cache()
    stats = executor.cache_stats().tiers
    assert (stats["device"].entries, stats["disk"].entries) == (0, len(PICTURES))


def test_there_is_no_disk_tier_by_default(monkeypatch, load_nano):
    monkeypatch.delenv(CACHE_DIR_VARIABLE, raising=False)
    assert list(load_nano(seed=7).cache_stats().tiers) == ["device"]

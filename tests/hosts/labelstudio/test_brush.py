from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_blocks.hosts.labelstudio.brush import rle_to_brush
from sam2_blocks.masks.rle import mask_to_rle

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda hw: arrays(bool, hw))


def long_runs():
    """One run of more than 2^16 values, one of exactly so many, and one of a pixel more."""
    pixels = np.zeros(40_000 + 16_384 + 16_385 + 3, bool)
    pixels[40_000:56_384] = True
    pixels[-3:] = True
    return pixels.reshape(4, -1)


def decode(brush, hw):
    """The format read bit by bit, as its description says."""
    bits = "".join(f"{byte:08b}" for byte in brush)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    count, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run = read(1)
        length = read(length_bits[read(2)]) + 1
        assert is_run
        values += [read(value_bits)] * length
    assert len(values) == count == 4 * hw[0] * hw[1]
    return np.array(values, np.uint8).reshape(*hw, 4)


@given(MASKS)
def test_all_four_values_of_a_pixel_are_255_inside(mask):
    decoded = decode(rle_to_brush(mask_to_rle(mask)), mask.shape)
    assert np.array_equal(decoded, np.repeat(mask[:, :, None] * np.uint8(255), 4, axis=2))


def test_runs_of_any_length():
    mask = long_runs()
    decoded = decode(rle_to_brush(mask_to_rle(mask)), mask.shape)
    assert np.array_equal(decoded[:, :, 3] > 0, mask)


def test_the_sdk_reads_it_and_writes_the_same_bytes():
    brush = pytest.importorskip("label_studio_sdk.converter.brush")

    @given(MASKS)
    def check(mask):
        encoded = rle_to_brush(mask_to_rle(mask))
        assert encoded == brush.mask2rle(mask.astype(np.uint8) * 255)
        decoded = np.reshape(brush.decode_rle(encoded), (*mask.shape, 4))
        assert np.array_equal(decoded[:, :, 3] > 0, mask)

    check()
    mask = long_runs()
    assert rle_to_brush(mask_to_rle(mask)) == brush.mask2rle(mask.astype(np.uint8) * 255)

"""Masks → the run lengths of Label Studio's brush, which are not those of COCO.

A stream of bits, packed into bytes: the number of values (32 bits), bits of a value less one (5),
bits of each of four lengths, less one (4 each), then runs. A run is a 1, which of the four lengths
it uses (2 bits), its length less one, and its value. Values are those of an RGBA picture, row by
row, all four 255 inside the mask.

Source: ``rle-pack`` of thi.ng/umbrella, and ``label_studio_sdk.converter.brush``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Int64Array, Rle, UInt8Array

CHANNELS = 4
VALUE_BITS = 8
LENGTH_BITS = np.array([3, 4, 8, 16])
LONGEST = 2**16
RUN_BITS = 1 + 2 + 16 + VALUE_BITS
"""Most bits of a run."""


def rle_to_brush(rle: Rle) -> list[int]:
    """Encode a mask as ``label_studio_sdk.converter.brush.mask2rle`` does, byte for byte.

    Args:
        rle: the mask.

    Returns:
        Bytes, for the ``rle`` of a brush region.
    """
    mask = rle_to_mask(rle)
    bits = np.concatenate([_header(CHANNELS * mask.size), _run_bits(*_runs(mask))])
    packed: UInt8Array = np.packbits(bits)
    if bits.size % 8 == 0:  # theirs ends with zeros in any case, up to eight
        packed = np.append(packed, np.uint8(0))
    return [int(byte) for byte in packed]


def _runs(mask: NDArray[np.bool_]) -> tuple[Int64Array, Int64Array, NDArray[np.bool_]]:
    """Lengths in values, none over `LONGEST`, which of the four they are, and whether inside."""
    pixels = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    lengths = CHANNELS * np.diff(np.append(starts, pixels.size))
    pieces = -(-lengths // LONGEST)
    last = np.cumsum(pieces) - 1
    cut = np.full(int(pieces.sum()), LONGEST, np.int64)
    cut[last] = lengths - (pieces - 1) * LONGEST
    which = np.searchsorted(2**LENGTH_BITS, cut)
    which[np.repeat(pieces > 1, pieces)] = len(LENGTH_BITS) - 1  # also what is left of a long one
    return cut, which, np.repeat(pixels[starts], pieces)


def _header(count: int) -> UInt8Array:
    fields = [(count, 32), (VALUE_BITS - 1, 5), *((int(bits) - 1, 4) for bits in LENGTH_BITS)]
    return np.array([int(bit) for value, bits in fields for bit in f"{value:0{bits}b}"], np.uint8)


def _run_bits(lengths: Int64Array, which: Int64Array, is_inside: NDArray[np.bool_]) -> UInt8Array:
    """The bits of all runs, one after the other."""
    bits = LENGTH_BITS[which]
    code = (4 + which) << bits | (lengths - 1)
    code = code << VALUE_BITS | np.where(is_inside, 2**VALUE_BITS - 1, 0)
    places = np.arange(RUN_BITS)[::-1]  # the highest bit first
    used = places < (1 + 2 + bits + VALUE_BITS)[:, None]
    every: UInt8Array = (code[:, None] >> places & 1).astype(np.uint8)
    return every[used]

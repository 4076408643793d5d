"""Pictures of more than 8 bits → 8 bits, so that people see what is in them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.errors import ImageError
from sam2_blocks.values import UInt8Array

BITS = (8, 10, 12, 14, 16)
"""Depths of cameras; files hold them in 16 bits or more."""

Range = tuple[float, float]

_log = logging.getLogger(__name__)


def find_range(values: NDArray[Any]) -> Range:
    """Find which values are black and white: of a picture, or of all frames of a clip.

    Returns:
        0 and the largest value of the fewest bits in `BITS` that hold all; 0 and 1 for floats
        within these; else the least and the largest value. NaN and infinite values do not count.

    Raises:
        ImageError: if there is no finite value.
    """
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
        if not values.size:
            raise ImageError("its pixels are all NaN or infinite.")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    if low >= 0 and high < 2 ** BITS[-1]:
        return 0.0, float(next(2**bits - 1 for bits in BITS if high < 2**bits))
    return low, high


def to_eight_bits(values: NDArray[Any], value_range: Range | None = None) -> UInt8Array:
    """Scale values to 0..255.

    Args:
        values: numbers of any type, any shape.
        value_range: which become 0 and 255; found, and said once in the log, if not given. What
            lies outside is clipped, NaN is 0.

    Raises:
        ImageError: if there is no finite value.
    """
    if value_range is None:
        value_range = say_range(find_range(values))
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * (255.0 / ((high - low) or 1.0))
    pixels: UInt8Array = np.nan_to_num(scaled, nan=0.0).round().clip(0, 255).astype(np.uint8)
    return pixels


def say_range(found: Range) -> Range:
    """Say once in the log what was found, if it is a guess; the range as it is."""
    if found not in ((0.0, 65535.0), (0.0, 1.0)):
        _say(*found)
    return found


@cache
def _say(low: float, high: float) -> None:
    """Say once what is taken for black and white."""
    _log.warning(
        "pictures of more than 8 bits: %g is taken for black and %g for white; --value-range "
        "(value_range) sets them for all",
        low,
        high,
    )

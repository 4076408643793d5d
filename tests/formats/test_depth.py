from __future__ import annotations

import logging

import numpy as np
import pytest

from sam2_blocks.errors import ImageError
from sam2_blocks.formats import depth
from sam2_blocks.formats.depth import find_range, to_eight_bits


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ([0, 200], "u2", (0, 255)),
        ([0, 256], "u2", (0, 1023)),
        ([3, 4095], "u2", (0, 4095)),
        ([3, 4096], "i4", (0, 16383)),
        ([0, 65535], "u2", (0, 65535)),
        ([0, 65536], "i4", (0, 65536)),
        ([-5, 7], "i4", (-5, 7)),
        ([0.25, 0.75], "f4", (0, 1)),
        ([0.5, 300], "f4", (0.5, 300)),
        ([-1, 0.5, np.nan, np.inf], "f4", (-1, 0.5)),
    ],
)
def test_black_and_white_are_found(values, dtype, found):
    assert find_range(np.array(values, dtype)) == found


def test_values_are_scaled_and_clipped():
    assert to_eight_bits(np.array([[0, 2048, 4095]], np.uint16)).tolist() == [[0, 128, 255]]
    given = np.array([-1, 5, 10, 99, np.nan], np.float32)
    assert to_eight_bits(given, (0, 10)).tolist() == [0, 128, 255, 255, 0]
    assert to_eight_bits(np.array([[7, 7]], np.float32)).tolist() == [[0, 0]]


def test_nothing_but_nan_is_refused():
    with pytest.raises(ImageError, match="NaN or infinite"):
        find_range(np.array([np.nan, np.inf]))


def test_a_guess_is_said_once(caplog):
    depth._say.cache_clear()
    with caplog.at_level(logging.WARNING, "sam2_blocks"):
        for _ in range(2):
            to_eight_bits(np.array([[0, 900]], np.uint16))
        to_eight_bits(np.array([[0, 65535]], np.uint16))
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "pictures of more than 8 bits: 0 is taken for black and 1023 "
    ]

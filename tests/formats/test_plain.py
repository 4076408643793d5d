from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.plain import to_plain
from sam2_blocks.kinds import sample_detections, sample_image


class Odd:
    def __str__(self):
        return "odd"


@dataclass
class Pair:
    left: int
    right: str


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2]], np.uint8), [[1, 2]]),
        (np.array(["a", None], object), ["a", None]),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        ({1: (np.float32(0.5), {2})}, {"1": [0.5, [2]]}),
        (iter([1, 2]), [1, 2]),
        (b"abc", "YWJj"),
        (Path("a") / "b", "a/b"),
        (date(2026, 1, 2), "2026-01-02"),
        (Pair(1, "x"), {"left": 1, "right": "x"}),
        (Odd(), "odd"),
    ],
)
def test_values_become_what_json_can_say(value, plain):
    made = to_plain(value)
    assert made == plain
    assert type(made) is type(plain)
    json.dumps(made)


def test_numbers_that_are_not_finite_are_left_to_the_writer():
    assert np.isnan(to_plain({"x": np.float32("nan")})["x"])


def test_an_odd_value_may_be_refused():
    def refuse(value):
        raise TypeError(f"no {type(value).__name__}")

    with pytest.raises(TypeError, match="no Odd"):
        to_plain([1, {"x": Odd()}], odd=refuse)


def test_pictures_become_what_a_request_takes():
    image = sample_image()
    plain = to_plain([image])
    assert plain[0]["type"] == "base64"
    read = Pil.open(io.BytesIO(base64.b64decode(plain[0]["value"])))
    assert np.array_equal(np.asarray(read), image.pixels)


def test_detections_become_rows_wherever_they_are():
    assert [row["class_name"] for row in to_plain({"a": [sample_detections()]})["a"][0]] == [
        "face",
        "object",
    ]

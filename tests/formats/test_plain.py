from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from pydantic import BaseModel

from sam2_blocks.formats.plain import to_plain
from sam2_blocks.kinds import sample_detections, sample_image


class Odd:
    def __str__(self):
        return "odd"


@dataclass
class Pair:
    left: int
    right: str


class Model(BaseModel):
    score: float = 0.5
    at: tuple[int, ...] = (1,)


class Colour(Enum):
    RED = np.float32(1.5)


class Word(str, Enum):
    ONE = "one"


class Tensor:
    """Has rows, as those of torch, whose last axis cannot be gone through."""

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.5]], np.float32)

    def __iter__(self):
        raise TypeError("iteration over a 0-d tensor")


PAIRS = {"left": 1.5, "right": [{"left": [2], "right": "a"}]}


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
        (Pair(np.float32(1.5), [Pair(np.array([2]), Path("a"))]), PAIRS),
        (Model(), {"score": 0.5, "at": [1]}),
        (Colour.RED, 1.5),
        ({Word.ONE: Word.ONE, np.float32(0.5): 1}, {"one": "one", "0.5": 1}),
        (np.longdouble(1.5), 1.5),
        (np.array([1.5], np.longdouble), [1.5]),
        (np.datetime64("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05"),
        (np.array([5], "m8[ns]"), ["PT0S"]),
        (memoryview(b"abc"), "YWJj"),
        ("caf\udce9", "caf\\udce9"),
        ({"\ud800": Path("a\udcff")}, {"\\ud800": "a\\udcff"}),
        (Tensor(), [[1.5]]),
        (Odd(), "odd"),
    ],
)
def test_values_become_what_json_can_say(value, plain):
    made = to_plain(value)
    assert made == plain
    assert type(made) is type(plain)
    json.dumps(made, ensure_ascii=False).encode()


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


def test_a_value_that_holds_itself_is_refused():
    loop = []
    loop.append({"again": loop})
    with pytest.raises(ValueError, match="holds itself, or is nested too deeply"):
        to_plain(loop)


def test_nothing_odd_hides_in_a_dataclass():
    def refuse(value):
        raise TypeError(f"no {type(value).__name__}")

    with pytest.raises(TypeError, match="no Odd"):
        to_plain(Pair(Odd(), "x"), odd=refuse)

"""What the process answers, in this one; that it can be killed is in `test_decoders`."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.service import decoder
from sam2_blocks.service.decoder import (
    ANSWER,
    MAX_SCANS,
    MEASURE,
    NO_MEMORY,
    PIXELS,
    REFUSED,
    answer,
)
from tests.service.hostile import of_mode, repeated_scans

PNG = of_mode("RGB", "PNG", (40, 30))


def ask(content, question=PIXELS, max_pixels=1_000_000):
    out = io.BytesIO()
    answer(question, max_pixels, content, out)
    kind, first, second = ANSWER.unpack(out.getvalue()[: ANSWER.size])
    return kind, (first, second), out.getvalue()[ANSWER.size :]


def turned():
    stream, exif = io.BytesIO(), Pil.Exif()
    exif[0x0112] = 6  # a quarter turn
    Pil.new("RGB", (40, 30)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_pixels_follow_their_height_and_width():
    assert ask(PNG) == (PIXELS, (30, 40), bytes(30 * 40 * 3))
    assert ask(turned())[:2] == (PIXELS, (40, 30))
    many = Pil.fromarray(np.arange(1500 * 1000 * 3, dtype=np.uint8).reshape(1500, 1000, 3))
    stream = io.BytesIO()
    many.save(stream, "PNG")
    assert ask(stream.getvalue(), max_pixels=2_000_000)[2] == many.tobytes()


def test_a_header_is_measured_as_it_is_in_the_file():
    assert ask(PNG, MEASURE) == (MEASURE, (30, 40), b"")
    assert ask(turned(), MEASURE) == (MEASURE, (30, 40), b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (PNG[:60], "cannot be decoded, is it cut short"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (of_mode("L", "PNG", (1001, 1000)), "1001x1000 pixels, the limit is 1000000"),
        (repeated_scans(MAX_SCANS, (16, 16)), f"a JPEG file of {MAX_SCANS + 10} scans, the limit"),
    ],
)
def test_what_is_refused_for_sure_says_why(content, message):
    kind, _, text = ask(content)
    assert kind == REFUSED
    assert message in text.decode()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), ""),
        (OSError("could not create decoder object"), "could not create decoder object"),
        (RuntimeError("odd"), "cannot be decoded (RuntimeError)."),
    ],
)
def test_what_more_memory_may_help_is_not_refused_for_sure(monkeypatch, error, text):
    def fail(picture):
        raise error
        yield

    monkeypatch.setattr(decoder, "pil_to_bands", fail)
    large = of_mode("RGB", "PNG", (1500, 1500))
    kind, _, said = ask(large, max_pixels=3_000_000)
    assert kind == NO_MEMORY
    assert text in said.decode()
    assert bool(said) is bool(text)


def test_half_a_picture_is_no_answer(monkeypatch):
    def fail(picture):
        yield np.zeros((1, 40, 3), np.uint8)
        raise MemoryError

    monkeypatch.setattr(decoder, "pil_to_bands", fail)
    with pytest.raises(MemoryError):
        ask(PNG)

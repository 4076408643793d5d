from __future__ import annotations

import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.deep_colour import is_deep_colour, to_shallow_colour
from sam2_blocks.formats.images import pil_to_rgb, read_image

RED, GREY = (4095, 0, 1000), (2048, 2048, 2048)
VALUES = np.array([[RED, GREY, RED], [GREY, GREY, RED]], np.uint16)
TWELVE_BITS = np.array([[255, 0, 62], [128, 128, 128], [255, 0, 62]])


def save(path, values=VALUES):
    order = [2, 1, 0, 3][: values.shape[2]]
    assert cv2.imwrite(str(path), values[..., order])
    return path


@pytest.fixture(autouse=True, params=["cv2", "av"])
def reader(request, monkeypatch):
    """OpenCV, and what reads them where it is not installed."""
    if request.param == "av":
        monkeypatch.setitem(sys.modules, "cv2", None)
    return request.param


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_twelve_bits_of_colour_are_not_black(tmp_path, name):
    path = save(tmp_path / name)
    assert read_image(path).pixels[0].tolist() == TWELVE_BITS.tolist()
    assert read_image(path.read_bytes()).pixels[0].tolist() == TWELVE_BITS.tolist()
    with Pil.open(path) as picture:
        assert pil_to_rgb(picture)[0].tolist() == TWELVE_BITS.tolist()
    assert read_image(path, value_range=(0, 8190)).pixels[0, 0].tolist() == [128, 0, 31]


def test_sixteen_bits_keep_their_colours(tmp_path):
    values = (np.array([[[65535, 257, 0]]]) * np.ones((2, 3, 1))).astype(np.uint16)
    assert read_image(save(tmp_path / "a.png", values)).pixels[0, 0].tolist() == [255, 1, 0]


def test_alpha_is_blended_onto_white(tmp_path):
    alpha = np.array([[65535, 0, 65535], [65535] * 3], np.uint16)
    path = save(tmp_path / "a.png", np.dstack((VALUES, alpha)))
    assert read_image(path).pixels[0].tolist() == [[255, 0, 62], [255, 255, 255], [255, 0, 62]]


def test_grey_with_alpha(tmp_path):
    """Pillow writes none of 16 bits: rows of two samples, without a filter."""
    samples = np.array([[[65535, 65535], [257, 65535]], [[0, 65535], [257, 0]]], ">u2")
    head = (2).to_bytes(4, "big") * 2 + bytes([16, 4, 0, 0, 0])
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples))
    chunks = [chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    found = read_image(tmp_path / "a.png").pixels
    assert found.tolist() == [[[255] * 3, [1] * 3], [[0] * 3, [255] * 3]]


def test_tiles_want_opencv(tmp_path, reader):
    stored = np.zeros((16, 16, 3), "<u2") + np.array(RED, "<u2")
    tags = [
        *((256, 4, 16), (257, 4, 16), (258, 3, 16), (259, 3, 1), (262, 3, 2), (277, 3, 3)),
        *((284, 3, 1), (322, 4, 16), (323, 4, 16), (324, 4, 200), (325, 4, stored.nbytes)),
    ]
    entries = b"".join(
        struct.pack("<HHLHH" if kind == 3 else "<HHLL", tag, kind, 1, *([value, 0][: 5 - kind]))
        for tag, kind, value in tags
    )
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head.ljust(200, b"\0") + stored.tobytes())
    if reader == "cv2":
        assert read_image(tmp_path / "a.tif").pixels[9, 9].tolist() == [255, 0, 62]
    else:
        with pytest.raises(
            ImageError, match=r"a\.tif: .*tiles.*pip install opencv-python-headless"
        ):
            read_image(tmp_path / "a.tif")


def test_pages_share_black_and_white(tmp_path):
    pages = [VALUES // 16, VALUES]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), [page[..., ::-1] for page in pages])
    first, second = (read_image(f"{tmp_path}/a.tif#{number}").pixels for number in (0, 1))
    assert second[0].tolist() == TWELVE_BITS.tolist()
    assert first[0].tolist() == [[16, 0, 4], [8, 8, 8], [16, 0, 4]]


def test_colours_stay_upright(tmp_path):
    save(tmp_path / "a.png")
    with Pil.open(tmp_path / "a.png") as picture:
        exif = picture.getexif()
    exif[0x0112] = 6
    written = (tmp_path / "a.png").read_bytes()
    # The chunk eXIf goes behind the header, of 33 bytes.
    turn = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "b.png").write_bytes(written[:33] + turn + written[33:])
    upright = np.rot90(read_image(tmp_path / "a.png").pixels, -1)
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, upright)


def chunk(name, content):
    """A part of a PNG file."""
    crc = zlib.crc32(name + content)
    return len(content).to_bytes(4, "big") + name + content + crc.to_bytes(4, "big")


def test_eight_bits_are_left_to_pillow(tmp_path):
    Pil.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with Pil.open(tmp_path / "a.png") as picture:
        assert not is_deep_colour(picture)
        assert to_shallow_colour(picture) is picture


def test_what_is_cut_short_is_said(tmp_path):
    path = save(tmp_path / "a.png", np.tile(VALUES, (50, 50, 1)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"a\.png|cannot be decoded"):
        read_image(path)

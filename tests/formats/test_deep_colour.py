from __future__ import annotations

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
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = (len(body) - 4).to_bytes(4, "big") + body + crc_of(body)
    (tmp_path / "b.png").write_bytes(written[:33] + chunk + written[33:])
    upright = np.rot90(read_image(tmp_path / "a.png").pixels, -1)
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, upright)


def crc_of(body):
    import zlib

    return zlib.crc32(body).to_bytes(4, "big")


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

from __future__ import annotations

import base64
import io
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service.errors import ImageRefusedError
from sam2_blocks.values import Image
from tests.service.conftest import open_images, picture, to_base64

RED = Image(np.full((4, 6, 3), (255, 0, 0), np.uint8))


def read(type_, value, **settings):
    return open_images({"image": InferenceRequestImage(type=type_, value=value)}, **settings)[
        "image"
    ]


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def in_base64(content):
    return base64.b64encode(content).decode()


def png_header(width, height):
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunks = [body, b"IDAT" + zlib.compress(bytes(1000))]
    framed = [
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        for chunk in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    "prefix", ["", "data:image/png;base64,", "DATA:image/png;charset=x;BASE64,", " \n"]
)
def test_base64_and_data_uris_are_read(prefix):
    assert (read("base64", prefix + to_base64(RED)).pixels == RED.pixels).all()


def test_bytes_of_base64_and_uploads_are_read():
    encoded = to_base64(RED)
    assert (read("base64", encoded.encode()).pixels == RED.pixels).all()
    assert (read("multipart", base64.b64decode(encoded)).pixels == RED.pixels).all()


def test_pil_and_arrays_in_the_same_process_are_read():
    bgr = np.ascontiguousarray(RED.pixels[:, :, ::-1])
    assert (read("pil", Pil.fromarray(RED.pixels)).pixels == RED.pixels).all()
    assert (read("numpy_object", bgr).pixels == RED.pixels).all()


@pytest.mark.parametrize("type_", ["pil", "multipart", "numpy_object"])
@pytest.mark.parametrize("value", ["AAAA", [[1, 2]], {"size": [1, 1]}, 5])
def test_what_only_callers_in_the_same_process_have_is_refused_from_json(type_, value):
    with pytest.raises(ImageRefusedError, match=r"image: .*wants .*, got (str|list|dict|int)\."):
        read(type_, value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("%%%", "image: is not base64"),
        ("abc", "image: is not base64"),
        ("data:image/png,abc", "image: a data URI must look like data:image/png;base64"),
        (in_base64(b"no picture"), "image: .*not a picture that Pillow can read"),
        (to_base64(picture(), "JPEG")[:400], "image: .*cannot be decoded, is it cut short"),
        (in_base64(png_header(90_000, 90_000)), "image: .*(the limit is|exceeds limit)"),
        (in_base64(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "image: .*not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_field(value, message):
    with pytest.raises(ImageRefusedError, match=message):
        read("base64", value)


def test_the_pixel_limit_is_that_of_the_service():
    with pytest.raises(ImageRefusedError, match=r"image: .*80x60 pixels, the limit is 1000"):
        read("base64", to_base64(picture()), max_pixels=1000)


def test_numpy_is_refused_unless_switched_on():
    with pytest.raises(ImageRefusedError, match="image: images of type 'numpy' are switched off"):
        read("numpy", in_base64(npy(RED.pixels)))


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_an_npy_file_is_read_as_bgr(layout):
    bgr = layout(RED.pixels[:, :, ::-1])
    assert (read("numpy", in_base64(npy(bgr)), allow_numpy=True).pixels == RED.pixels).all()
    assert (read("numpy", npy(bgr), allow_numpy=True).pixels == RED.pixels).all()


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Bomb()), "not a .npy file"),
        (npy(np.array([Bomb()], object), allow_pickle=True), "not a .npy file of a uint8 array"),
        (npy(np.zeros((4, 4, 3))), "wants uint8"),
        (npy(np.zeros((4, 4), np.uint8)), r"wants shape \(H, W, 3\)"),
        (npy(RED.pixels)[:-1], "72 bytes, got uint8, 71 bytes"),
        (npy(RED.pixels).replace(b"(4, 6, 3)", b"(4, 6**9)"), "not a .npy file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '|u1'", "not a .npy file"),
        (b"", "needs a value"),
    ],
)
def test_an_npy_file_is_never_trusted(content, message):
    with pytest.raises(ValueError if not content else ImageRefusedError, match=message):
        read("numpy", content, allow_numpy=True)
    assert not Bomb.exploded


def test_files_are_refused_unless_a_folder_is_given(tmp_path):
    path = tmp_path / "a.png"
    Pil.fromarray(RED.pixels).save(path)
    with pytest.raises(ImageRefusedError, match="image: images of type 'file' are switched off"):
        read("file", str(path))
    assert (read("file", "a.png", file_root=tmp_path).pixels == RED.pixels).all()


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "link.png", "none.png", ".", "a\0b"])
def test_only_files_below_the_folder_are_read(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    Pil.fromarray(RED.pixels).save(tmp_path / "a.png")
    (root / "link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(ImageRefusedError, match=r"image: (there is no such file|the file cannot)"):
        read("file", name, file_root=root)


def test_urls_can_be_switched_off():
    with pytest.raises(ImageRefusedError, match="image: images from URLs are switched off"):
        read("url", "http://example.com/a.png", allow_urls=False)

from __future__ import annotations

import io
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats import images as images_module
from sam2_blocks.formats.images import (
    array_to_image,
    boxes_to_upright,
    count_frames,
    pil_to_bands,
    pil_to_rgb,
    read_image,
    split_frame,
    stored_orientation,
)


@pytest.fixture
def save(tmp_path):
    def run(picture, name, **options):
        path = tmp_path / name
        picture.save(path, **options)
        return path

    return run


def test_rgb_comes_back_unchanged(save):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    image = read_image(save(Pil.fromarray(pixels), "a.png"))
    assert np.array_equal(image.pixels, pixels)
    assert image.id == "a.png"
    assert image.hw == (4, 5)


def test_exif_orientation_is_applied(save):
    picture = Pil.new("RGB", (4, 2), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Pil.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to be upright
    image = read_image(save(picture, "a.png", exif=exif))
    assert image.hw == (4, 2)
    assert image.pixels[0, 1].tolist() == [255, 255, 255]


def test_transparent_pixels_become_white(save):
    picture = Pil.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert read_image(save(picture, "a.png")).pixels.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_palette_becomes_its_colours(save):
    picture = Pil.new("RGB", (2, 1), (10, 200, 30)).convert("P", palette=Pil.Palette.ADAPTIVE)
    pixels = read_image(save(picture, "a.png")).pixels
    assert abs(pixels.astype(int) - [10, 200, 30]).max() <= 4


def test_cmyk_becomes_rgb(save):
    pixels = read_image(save(Pil.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg")).pixels
    red, green, blue = pixels[4, 4].tolist()
    assert red > 200
    assert max(green, blue) < 60


def test_sixteen_bits_are_scaled_to_eight(save):
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    pixels = read_image(save(Pil.fromarray(values), "a.png")).pixels
    assert pixels[0, :, 0].tolist() == [0, 128, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_big_endian_sixteen_bits_are_scaled_the_same(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + bytes([0, 0, 0x80, 0, 0xFF, 0xFF]))
    assert read_image(tmp_path / "a.pgm").pixels[0, :, 0].tolist() == [0, 128, 255]


def test_floats_of_0_to_1_are_shares(save):
    good = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert read_image(save(Pil.fromarray(good), "a.tif")).pixels[0, :, 1].tolist() == [0, 128, 255]


def test_the_range_of_values_may_be_given(save):
    values = np.array([[0, 1000, 2000, 4095]], dtype=np.uint16)
    path = save(Pil.fromarray(values), "a.png")
    assert read_image(path, value_range=(1000, 2000)).pixels[0, :, 0].tolist() == [0, 0, 255, 255]


def test_all_frames_of_a_clip_have_one_range(save, tmp_path):
    frames = [Pil.fromarray(np.array([[0, top]], np.uint16)) for top in (200, 4095, 900)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert count_frames(tmp_path / "a.tif") == 3
    read = [read_image(f"{tmp_path}/a.tif#{number}") for number in range(3)]
    assert [image.pixels[0, 1, 0] for image in read] == [12, 255, 56]
    assert {image.path for image in read} == {tmp_path / "a.tif"}
    assert read[1].id == "a.tif#1"
    with pytest.raises(ImageError, match=r"a\.tif#3: has no such frame"):
        read_image(f"{tmp_path}/a.tif#3")


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_frames_of_animations_are_pictures(tmp_path, suffix):
    colours = ["red", "lime", "blue"]
    first, *others = [Pil.new("RGB", (16, 16), colour) for colour in colours]
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=100)
    for number in range(3):
        assert read_image(f"{path}#{number}").pixels[8, 8].argmax() == number


def test_a_file_may_have_a_hash_in_its_name(save):
    assert read_image(save(Pil.new("RGB", (4, 3)), "a#1.png")).id == "a#1.png"
    assert split_frame("x/b.tif#12") == (Path("x/b.tif"), 12)
    assert split_frame("x/#12") == (Path("x/#12"), None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pictures_do(tmp_path, orientation):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:15, 20:50] = 255
    exif = Pil.Exif()
    exif[0x0112] = orientation
    Pil.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert stored_orientation(tmp_path / "a.png") == orientation
    [box] = boxes_to_upright(np.array([[20.0, 5, 50, 15]]), orientation, (40, 60)).astype(int)
    assert image.pixels[box[1] : box[3], box[0] : box[2]].all()
    assert image.pixels.any(axis=2).sum() == 300


def test_how_a_picture_is_stored_is_in_its_file(tmp_path):
    with pytest.raises(ImageError, match="has no file"):
        stored_orientation(None)
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(ImageError, match="its orientation cannot be read"):
        stored_orientation(tmp_path / "a.png")
    assert count_frames(tmp_path / "a.png") == 1


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ImageError, match="Is a directory"):
        read_image(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg: no such file\. Check the path\."):
        read_image(tmp_path / "none.jpg")


def test_a_truncated_jpeg_is_refused(save):
    path = save(Pil.effect_noise((64, 64), 90).convert("RGB"), "a.jpg")
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be decoded, is it cut short\?"):
        read_image(path)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(ImageError, match=r"a\.jpg: not a picture that Pillow can read"):
        read_image(tmp_path / "a.jpg")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(tmp_path / "a.jpg")


def _png_header(width, height):
    """A PNG that claims a size; its pixels are never there."""
    picture = io.BytesIO()
    Pil.new("1", (1, 1)).save(picture, "PNG")
    content = bytearray(picture.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_a_bomb_is_refused_before_decoding():
    with pytest.raises(ImageError, match=r"limit is 178956970.*raise the limit with --max-pixels"):
        read_image(_png_header(30_000, 30_000))


def test_the_pixel_limit_can_be_changed(save):
    path = save(Pil.new("RGB", (20, 20)), "a.png")
    with pytest.raises(ImageError, match="20x20 pixels, the limit is 399"):
        read_image(path, max_pixels=399)
    assert read_image(path, max_pixels=400).hw == (20, 20)


def test_a_zero_size_picture_is_refused():
    with pytest.raises(ImageError, match=r"zero\.ppm.*"):
        read_image(b"P6 0 4 255 ", image_id="zero.ppm")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2)), r"wants a uint8 array \(H, W, 3\) in RGB, got float64 array"),
        ("x", "got str"),
        (np.zeros((2, 2), np.uint8), r"wants shape \(H, W, 3\) with H, W >= 1, got \(2, 2\)"),
        (np.zeros((0, 2, 3), np.uint8), r"got \(0, 2, 3\)"),
        (np.zeros((2, 2, 3)), r"from 0 to 1 give \(255 \* array\)"),
        (SimpleNamespace(detach=None), r"Of a tensor give tensor\.cpu\(\)\.numpy\(\)"),
        (np.zeros((2, 2), np.uint8), r"Of a grey picture give np\.stack"),
        (np.zeros((3, 9, 8), np.uint8), r"come first give array\.transpose\(1, 2, 0\)"),
        (np.zeros((9, 8, 4), np.uint8), r"transparency give array\[\.\.\., :3\]"),
        (np.zeros((2, 9, 8, 3), np.uint8), "Give the pictures of a batch one by one"),
    ],
)
def test_only_rgb_arrays_are_wrapped(array, message):
    with pytest.raises(ImageError, match=message):
        array_to_image(array, "a")


def test_only_the_formats_asked_for_are_read(save):
    path = save(Pil.new("RGB", (4, 4)), "a.bmp")
    assert read_image(path, formats=("BMP",)).hw == (4, 4)
    with pytest.raises(ImageError, match="not a picture that Pillow can read"):
        read_image(path, formats=("PNG", "JPEG"))


def test_a_pillow_picture_is_read_as_its_file_would_be(save):
    path = save(Pil.new("L", (4, 3), 7), "grey.png")
    with Pil.open(path) as picture:
        image = read_image(picture)
    assert image.id == "grey.png"
    assert np.array_equal(image.pixels, read_image(path).pixels)
    assert read_image(Pil.new("RGB", (4, 3)), image_id="new").id == "new"


@pytest.mark.parametrize("given", [None, 3, np.zeros((3, 4, 3), np.uint8)])
def test_what_is_no_picture_at_all_is_refused(given):
    with pytest.raises(ImageError, match="wants a path, the bytes of a picture or a Pillow"):
        read_image(given)


def pictures_of_all_modes():
    rng = np.random.default_rng(0)
    rgb = Pil.fromarray(rng.integers(0, 256, (37, 23, 3), np.uint8))
    see_through = rgb.convert("P")
    see_through.info["transparency"] = 3
    deep = rng.integers(0, 65536, (37, 23))
    return [
        *(rgb.convert(mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr")),
        see_through,
        Pil.fromarray(deep.astype(np.uint16)),
        Pil.fromarray(deep.astype(np.int32)),
        Pil.fromarray((deep / 65535).astype(np.float32)),
    ]


@pytest.mark.parametrize("picture", pictures_of_all_modes(), ids=lambda picture: picture.mode)
def test_a_picture_converted_in_bands_is_that_converted_at_once(picture, monkeypatch):
    at_once = pil_to_rgb(picture)
    monkeypatch.setattr(images_module, "BAND_PIXELS", 100)
    bands = list(pil_to_bands(picture))
    assert [len(band) for band in bands] == [4] * 9 + [1]
    assert np.array_equal(np.concatenate(bands), at_once)


@pytest.mark.parametrize(("value", "grey"), [(1.5, 255), (2.5, 255), (np.nan, 0), (np.inf, 255)])
def test_a_value_of_any_band_counts_for_all(value, grey, monkeypatch):
    monkeypatch.setattr(images_module, "BAND_PIXELS", 4)
    values = np.full((9, 4), 0.5, np.float32)
    values[0] = 0
    values[7, 2] = value
    pixels = pil_to_rgb(Pil.fromarray(values))
    assert pixels[7, 2].tolist() == [grey] * 3
    others = 128 if not np.isfinite(value) else round(0.5 / value * 255)
    assert pixels[1, 0].tolist() == [others] * 3


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png: the file is empty\."):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(b"")


def test_of_an_animated_png_it_is_said_that_one_frame_is_read(tmp_path, caplog):
    frames = [Pil.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.png").pixels[0, 0].tolist() == [255, 0, 0]
    assert "a.png: an animation, the first frame is read" in caplog.text
    assert read_image(tmp_path / "a.png#1").pixels[0, 0].tolist() == [0, 0, 255]

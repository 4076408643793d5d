"""Picture files → `Image`: upright by EXIF, any colour mode to RGB, bombs refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError

from sam2_blocks.errors import ImageError
from sam2_blocks.values import UNNAMED, Image, UInt8Array

MAX_PIXELS = 178_956_970
"""Largest picture read by default, in pixels: Pillow's own limit, about 13,000 x 13,000."""

BAND_PIXELS = 2**20
"""Pixels converted at once."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def read_image(
    source: str | Path | bytes | Pil.Image,
    *,
    image_id: str | None = None,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> Image:
    """Read one picture.

    Args:
        source: a path, the bytes of an encoded picture, or an open Pillow picture.
        image_id: name of the result; the file name if not given.
        max_pixels: refuse larger pictures before decoding them. Pillow refuses those of more than
            twice ``PIL.Image.MAX_IMAGE_PIXELS`` on its own.
        formats: names of the Pillow formats to read, such as ``PNG``; all if not given. Pillow runs
            other programs for some.

    Returns:
        The picture in RGB. Transparent pixels are blended onto white, 16-bit values are scaled to
        8 bits, CMYK and palettes are converted, and the EXIF orientation is applied.

    Raises:
        ImageError: if the file is missing, truncated, too large, empty or not a picture.

    Example:
        >>> image = read_image("examples/pictures/coins.jpg")
        >>> image.id, image.pixels.shape
        ('coins.jpg', (606, 768, 3))
    """
    if isinstance(source, Pil.Image):
        return Image(pil_to_rgb(source), image_id or _name_of(source))
    if not isinstance(source, str | Path | bytes):
        raise ImageError(
            "wants a path, the bytes of a picture or a Pillow picture, got "
            f"{type(source).__name__}. For an RGB array use Image(pixels, id)."
        )
    name = image_id or (Path(source).name if isinstance(source, str | Path) else UNNAMED)
    label = str(source) if isinstance(source, str | Path) else f"{name} ({len(source)} bytes)"
    with open_picture(source, label=label, max_pixels=max_pixels, formats=formats) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        pixels = _join_bands(picture)
    return Image(pixels, name, None if isinstance(source, bytes) else Path(source))


@contextmanager
def open_picture(
    source: str | Path | bytes,
    *,
    label: str = "the picture",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> Iterator[Pil.Image]:
    """Open a picture whose header says it is not too large; see `read_image`.

    Args:
        source: a path, or the bytes of an encoded picture.
        label: what messages call it.
        max_pixels: refuse larger pictures.
        formats: names of the Pillow formats to read.

    Raises:
        ImageError: for whatever goes wrong with the picture inside the block, too.
    """
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        with Pil.open(stream, formats=formats) as picture:
            _refuse_bomb(picture, label, max_pixels)
            yield picture
    except FileNotFoundError as error:
        raise ImageError(f"{label}: no such file. Check the path.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{label}: {error.strerror}.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{label}: not a picture that Pillow can read.") from error
    except Pil.DecompressionBombError as error:
        limit = min(max_pixels, 2 * (Pil.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(
            f"{label}: too many pixels, the limit is {limit}. Scale it down, or raise the limit "
            "with --max-pixels (in Python, PIL.Image.MAX_IMAGE_PIXELS)."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{label}: cannot be decoded, is it cut short? ({error})") from error


def _name_of(picture: Pil.Image) -> str:
    """The name of the file that a Pillow picture was opened from, if any."""
    return Path(str(getattr(picture, "filename", "") or UNNAMED)).name


def pil_to_rgb(picture: Pil.Image) -> UInt8Array:
    """Convert an open Pillow picture of any mode to upright uint8 RGB, (H, W, 3).

    Raises:
        ImageError: if the picture has no pixels.
    """
    if 0 in picture.size:
        raise ImageError(f"the picture has no pixels, its size is {picture.size}.")
    return _join_bands(ImageOps.exif_transpose(picture))


def pil_to_bands(picture: Pil.Image) -> Iterator[UInt8Array]:
    """Convert a Pillow picture of any mode to uint8 RGB, (rows, W, 3), from the top downwards.

    Conversions take several times the memory of what they convert; so never much at once.

    Raises:
        ImageError: if the picture has no pixels, or 16-bit values outside of their range.
    """
    width, height = picture.size
    if not width or not height:
        raise ImageError(f"the picture has no pixels, its size is {picture.size}.")
    picture.load()
    top = _white_of(picture)
    for band in _bands_of(picture):
        yield _band_to_rgb(band if top is None else _to_eight_bits(band, top))


def _join_bands(picture: Pil.Image) -> UInt8Array:
    width, height = picture.size
    pixels, row = np.empty((height, width, 3), np.uint8), 0
    for band in pil_to_bands(picture):
        pixels[row : row + len(band)] = band
        row += len(band)
    return pixels


def _bands_of(picture: Pil.Image) -> Iterator[Pil.Image]:
    width, height = picture.size
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield picture.crop((0, top, width, min(height, top + rows)))


def _band_to_rgb(picture: Pil.Image) -> UInt8Array:
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        canvas = Pil.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Pil.alpha_composite(canvas, rgba)
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def check_image(image: object) -> None:
    """Check that a value is a picture.

    Raises:
        ImageError: if it is no `Image`, or not uint8 (H, W, 3) with at least one pixel.
    """
    if not isinstance(image, Image):
        raise ImageError(
            f"wants an Image, got {type(image).__name__}. Make one with read_image, or with "
            "Image(pixels, id) of an RGB array."
        )
    array_to_image(image.pixels, image.id)


def array_to_image(array: object, image_id: str = UNNAMED) -> Image:
    """Wrap an RGB array as an `Image`.

    Raises:
        ImageError: if it is not uint8 (H, W, 3) with at least one pixel.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(f"image {image_id!r}: wants a uint8 array (H, W, 3) in RGB, got {got}.")
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"image {image_id!r}: wants shape (H, W, 3) with H, W >= 1, got {array.shape}."
        )
    return Image(array, image_id)


def _refuse_bomb(picture: Pil.Image, label: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"{label}: {width}x{height} pixels, the limit is {max_pixels}. "
            "Scale it down, or raise the limit with max_pixels (--max-pixels)."
        )


def _white_of(picture: Pil.Image) -> float | None:
    """The value of white: 65535 of 16-bit integers, 1 of floats in 0..1; None if it has 8 bits.

    Raises:
        ImageError: if a pixel is outside of that range.
    """
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return None
    top = 1.0 if picture.mode == "F" else 65535.0
    extremes = [(band.min(), band.max()) for band in map(np.asarray, _bands_of(picture))]
    lowest, highest = np.min(extremes), np.max(extremes)  # NaN, if there is one
    if not (lowest >= 0 and highest <= top):
        raise ImageError(
            f"its pixels go from {lowest:g} to {highest:g}, a picture of mode {picture.mode!r} "
            f"wants 0 to {top:g}. Scale it and save it with 8 bits."
        )
    return top


def _to_eight_bits(picture: Pil.Image, top: float) -> Pil.Image:
    """Scale values from 0 to ``top`` to 0..255."""
    values = np.asarray(picture, dtype=np.float64)
    return Pil.fromarray((values * (255.0 / top)).round().astype(np.uint8))

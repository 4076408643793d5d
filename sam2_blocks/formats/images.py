"""Picture files → `Image`: upright by EXIF, any colour mode to RGB, bombs refused."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps, ImageSequence, UnidentifiedImageError
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.deep_colour import (
    is_deep_colour,
    range_of_deep_colours,
    to_shallow_colour,
)
from sam2_blocks.formats.depth import Range, find_range, say_range, to_eight_bits
from sam2_blocks.values import UNNAMED, Hw, Image, UInt8Array

MAX_PIXELS = 178_956_970
"""Largest picture read by default, in pixels: Pillow's own limit, about 13,000 x 13,000."""

BAND_PIXELS = 2**20
"""Pixels converted at once."""


_log = logging.getLogger(__name__)


def read_image(
    source: str | Path | bytes | Pil.Image,
    *,
    image_id: str | None = None,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
    value_range: Range | None = None,
) -> Image:
    """Read one picture.

    Args:
        source: a path, the bytes of an encoded picture, or an open Pillow picture. A path may end
            in ``#3`` for that frame or page, counted from 0; else the first is read.
        image_id: name of the result; the file name if not given.
        max_pixels: refuse larger pictures before decoding them. Pillow refuses those of more than
            twice ``PIL.Image.MAX_IMAGE_PIXELS`` on its own.
        formats: names of the Pillow formats to read, such as ``PNG``; all if not given. Pillow runs
            other programs for some.
        value_range: values that are black and white in pictures of more than 8 bits; see
            `find_range` for those that are taken if not given.

    Returns:
        The picture in RGB. Transparent pixels are blended onto white, values of more than 8 bits
        are scaled, CMYK and palettes are converted, and the EXIF orientation is applied.

    Raises:
        ImageError: if the file is missing, truncated, too large, empty or not a picture.

    Example:
        >>> image = read_image("examples/pictures/coins.jpg")
        >>> image.id, image.pixels.shape
        ('coins.jpg', (606, 768, 3))
    """
    if isinstance(source, Pil.Image):
        return Image(pil_to_rgb(source, value_range), image_id or _name_of(source))
    if not isinstance(source, str | Path | bytes):
        raise ImageError(
            "wants a path, the bytes of a picture or a Pillow picture, got "
            f"{type(source).__name__}. For an RGB array use Image(pixels, id)."
        )
    name = image_id or (Path(source).name if isinstance(source, str | Path) else UNNAMED)
    label = str(source) if isinstance(source, str | Path) else f"{name} ({len(source)} bytes)"
    path, frame = (None, None) if isinstance(source, bytes) else split_frame(source)
    with open_picture(
        path or source, label=label, max_pixels=max_pixels, formats=formats
    ) as picture:
        if frame is not None and path is not None:
            picture.seek(frame)
            _refuse_bomb(picture, label, max_pixels)
            value_range = value_range or _range_of_clip(path, path.stat().st_mtime_ns)
        elif picture.format == "PNG" and getattr(picture, "n_frames", 1) > 1:
            _log.warning(
                "%s: an animation, the first frame is read; for the next end its path in #1", label
            )
        shallow = to_shallow_colour(picture, value_range)
        ImageOps.exif_transpose(shallow, in_place=True)
        pixels = _join_bands(shallow, value_range)
    return Image(pixels, name, path)


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
    except ImageError as error:  # of one who has only the picture
        if str(error).startswith(label):
            raise
        raise ImageError(f"{label}: {error}") from error.__cause__
    except FileNotFoundError as error:
        raise ImageError(f"{label}: no such file. Check the path.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{label}: {error.strerror}.") from error
    except UnidentifiedImageError as error:
        empty = len(source) == 0 if isinstance(source, bytes) else Path(source).stat().st_size == 0
        what = "the file is empty" if empty else "not a picture that Pillow can read"
        raise ImageError(f"{label}: {what}.") from error
    except Pil.DecompressionBombError as error:
        limit = min(max_pixels, 2 * (Pil.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(
            f"{label}: too many pixels, the limit is {limit}. Scale it down, or raise the limit "
            "with --max-pixels (in Python, PIL.Image.MAX_IMAGE_PIXELS)."
        ) from error
    except EOFError as error:
        raise ImageError(f"{label}: has no such frame.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{label}: cannot be decoded, is it cut short? ({error})") from error


def split_frame(source: str | Path) -> tuple[Path, int | None]:
    """Split ``a.tif#3`` into the file and the frame, if there is no file of the whole name."""
    path = Path(source)
    stem, mark, number = path.name.rpartition("#")
    if not mark or not stem or not number.isdecimal() or path.exists():
        return path, None
    return path.with_name(stem), int(number)


def count_frames(path: Path) -> int:
    """Count the frames or pages of a picture file; 1 if nobody can tell."""
    try:
        with Pil.open(path) as picture:
            return int(getattr(picture, "n_frames", 1))
    except Exception:  # reading it says what is wrong with it
        return 1


@lru_cache(maxsize=256)
def _range_of_clip(path: Path, _: int) -> Range | None:
    """Black and white of all frames of a file, where they have more than 8 bits."""
    with Pil.open(path) as picture:
        if is_deep_colour(picture):
            return range_of_deep_colours(picture)
        frames = ImageSequence.Iterator(picture)
        return _range_of(frames) if _is_deep(picture) else None


def _range_of(pictures: Iterable[Pil.Image]) -> Range:
    """Black and white of pictures of more than 8 bits, looked at in bands."""
    ends = []
    for picture in pictures:
        for band in _bands_of(picture):
            values = np.asarray(band)
            finite = values[np.isfinite(values)]
            ends += [finite.min(), finite.max()] if finite.size else []
    return find_range(np.array(ends))


def _is_deep(picture: Pil.Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _name_of(picture: Pil.Image) -> str:
    """The name of the file that a Pillow picture was opened from, if any."""
    return Path(str(getattr(picture, "filename", "") or UNNAMED)).name


def pil_to_rgb(picture: Pil.Image, value_range: Range | None = None) -> UInt8Array:
    """Convert an open Pillow picture of any mode to upright uint8 RGB, (H, W, 3).

    Args:
        picture: open at the frame that is wanted.
        value_range: see `read_image`.

    Raises:
        ImageError: if the picture has no pixels, or none with a value.
    """
    if 0 in picture.size:
        raise ImageError(f"the picture has no pixels, its size is {picture.size}.")
    shallow = to_shallow_colour(picture, value_range)
    return _join_bands(ImageOps.exif_transpose(shallow), value_range)


def pil_to_bands(picture: Pil.Image, value_range: Range | None = None) -> Iterator[UInt8Array]:
    """Convert a Pillow picture of any mode to RGB, a few rows at a time.

    Conversions take several times the memory of what they convert, so never much is at once.

    Args:
        picture: open at the frame that is wanted; its orientation is not applied.
        value_range: see `read_image`.

    Yields:
        uint8, (rows, W, 3), from the top downwards.

    Raises:
        ImageError: if the picture has no pixels, or none with a value.
    """
    width, height = picture.size
    if not width or not height:
        raise ImageError(f"the picture has no pixels, its size is {picture.size}.")
    picture.load()
    deep = _is_deep(picture)
    if deep and value_range is None:
        value_range = say_range(_range_of([picture]))
    for band in _bands_of(picture):
        if deep:
            band = Pil.fromarray(to_eight_bits(np.asarray(band), value_range))
        yield _band_to_rgb(band)


def _join_bands(picture: Pil.Image, value_range: Range | None = None) -> UInt8Array:
    width, height = picture.size
    pixels, row = np.empty((height, width, 3), np.uint8), 0
    for band in pil_to_bands(picture, value_range):
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


def stored_orientation(path: Path | None) -> int:
    """Read how a picture is turned in its file: EXIF's orientation, 1 to 8; 1 is upright.

    Raises:
        ImageError: if there is no file, or it cannot be read.
    """
    if path is None:
        raise ImageError("the picture has no file, so nobody knows how it is stored.")
    try:
        with Pil.open(path) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: its orientation cannot be read ({error}).") from error
    return orientation if orientation in range(1, 9) else 1


def boxes_to_upright(boxes_xyxy: NDArray[Any], orientation: int, stored_hw: Hw) -> NDArray[Any]:
    """Turn boxes of a picture as it is stored to the upright picture.

    Args:
        boxes_xyxy: float, (N, 4), pixels.
        orientation: EXIF's.
        stored_hw: size of the picture as it is stored.

    Source: EXIF 2.32, tag 0x0112, as `PIL.ImageOps.exif_transpose` reads it.
    """
    height, width = stored_hw
    x = boxes_xyxy[:, [0, 2]]
    y = boxes_xyxy[:, [1, 3]]
    x = width - x if orientation in (2, 3, 7, 8) else x
    y = height - y if orientation in (3, 4, 6, 7) else y
    x, y = (y, x) if orientation >= 5 else (x, y)
    corners = (x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1))
    return np.stack(corners, axis=1).astype(boxes_xyxy.dtype)


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
    """Wrap an RGB array as an `Image`; the pixels are not copied.

    Args:
        array: uint8, (H, W, 3), RGB.
        image_id: name of the picture.

    Raises:
        ImageError: if it is not uint8 (H, W, 3) with at least one pixel.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(
            f"image {image_id!r}: wants a uint8 array (H, W, 3) in RGB, got {got}."
            f"{_advice_on_type(array)}"
        )
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"image {image_id!r}: wants shape (H, W, 3) with H, W >= 1, got {array.shape}."
            f"{_advice_on_shape(array.shape)}"
        )
    return Image(array, image_id)


def _advice_on_type(array: object) -> str:
    if hasattr(array, "detach"):
        return " Of a tensor give tensor.cpu().numpy()."
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        return " Of numbers from 0 to 1 give (255 * array).round().astype('uint8')."
    return ""


def _advice_on_shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return " Of a grey picture give np.stack([array] * 3, axis=-1)."
    if len(shape) == 4:
        return " Give the pictures of a batch one by one."
    if len(shape) == 3 and shape[0] == 3:
        return " Where the channels come first give array.transpose(1, 2, 0)."
    if len(shape) == 3 and shape[2] == 4:
        return " Where the fourth is transparency give array[..., :3]."
    return ""


def _refuse_bomb(picture: Pil.Image, label: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"{label}: {width}x{height} pixels, the limit is {max_pixels}. "
            "Scale it down, or raise the limit with max_pixels (--max-pixels)."
        )

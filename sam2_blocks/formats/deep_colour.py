"""Colours of more than 8 bits, of which Pillow keeps the upper 8: read with others instead.

OpenCV where it is installed, else FFmpeg, which does not read every TIFF file of this kind.

A camera's 12 bits in a file of 16 would turn nearly black, as its grey ones would; `depth` has the
rule for both.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.depth import Range, find_range, say_range, to_eight_bits
from sam2_blocks.values import UInt8Array

BAND_PIXELS = 2**20
"""Pixels converted at once."""

_COLOURS = ("RGB", "RGBA", "RGBX", "LA")
_DEEP = {"rgb48": "rgb48le", "rgba64": "rgba64le", "ya16": "rgba64le"}
"""FFmpeg's names of colours of 16 bits, without the order of bytes, and how they are wanted."""
_TILE_WIDTH = 322
"""A tag of TIFF files."""


def is_deep_colour(picture: Pil.Image) -> bool:
    """Whether a picture that is open, and not decoded yet, has colours of 16 bits in its file."""
    tiles = getattr(picture, "tile", None) or ()
    stored = [tile[3] for tile in tiles][:1]
    names = [str(one[0]) if isinstance(one, tuple) and one else str(one) for one in stored]
    return picture.mode in _COLOURS and any(";16" in name for name in names)


def to_shallow_colour(picture: Pil.Image, value_range: Range | None = None) -> Pil.Image:
    """Return the frame that a picture is open at with 8 bits; one without more as it is.

    Args:
        picture: open, and not decoded yet.
        value_range: which values become 0 and 255; found, and said, if not given.

    Raises:
        ImageError: if it cannot be decoded.
    """
    if not is_deep_colour(picture):
        return picture
    values = _values_of(picture, picture.tell())
    if value_range is None:
        value_range = say_range(find_range(values[..., :3]))
    made = Pil.fromarray(_to_eight_bits(values, value_range))
    made.getexif()[ExifTags.Base.Orientation] = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return made


def _to_eight_bits(values: NDArray[np.uint16], value_range: Range) -> UInt8Array:
    """Scale colours, and keep the upper bits of alpha; a band at a time, memory being dear."""
    height, width, channels = values.shape
    scaled = to_eight_bits(np.arange(2**16, dtype=np.uint16), value_range)
    pixels, rows = np.empty(values.shape, np.uint8), max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        pixels[band, :, :3] = scaled[values[band, :, :3]]
        if channels == 4:
            pixels[band, :, 3] = values[band, :, 3] >> 8
    return pixels


def range_of_deep_colours(picture: Pil.Image) -> Range:
    """Find black and white of all frames.

    Raises:
        ImageError: as `to_shallow_colour`.
    """
    ends = []
    for frame in range(int(getattr(picture, "n_frames", 1))):
        values = _values_of(picture, frame)[..., :3]
        ends += [values.min(), values.max()]
    return find_range(np.array(ends))


def _values_of(picture: Pil.Image, frame: int) -> NDArray[np.uint16]:
    """One frame as it is stored, (H, W, 3 or 4), red first."""
    try:
        import cv2
    except ImportError:
        values = _with_ffmpeg(picture, frame)
    else:
        values = _with_opencv(cv2, picture, frame)
    width, height = picture.size
    if values is None or values.dtype != np.uint16 or values.shape[:-1] != (height, width):
        raise ImageError("its colours of 16 bits cannot be decoded; save it with 8.")
    return values


def _with_opencv(cv2: Any, picture: Pil.Image, frame: int) -> NDArray[Any] | None:
    coded = np.frombuffer(_bytes_of(picture), np.uint8)
    if picture.format == "TIFF":
        decoded, pages = cv2.imdecodemulti(coded, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
        values = pages[0] if decoded and pages else None
    else:
        values = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED) if frame == 0 else None
    if values is None or values.ndim != 3:
        return None
    swap = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
    swapped: NDArray[Any] = cv2.cvtColor(values, swap, dst=values)
    return swapped


def _with_ffmpeg(picture: Pil.Image, frame: int) -> NDArray[Any] | None:
    import av

    if _TILE_WIDTH in getattr(picture, "tag_v2", ()):  # it would mix them up
        raise ImageError(
            "its colours of 16 bits lie in tiles, which only OpenCV reads: "
            "pip install opencv-python-headless, or save it with 8."
        )
    try:
        with av.open(io.BytesIO(_bytes_of(picture))) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if picture.format == "TIFF":
                stream.codec_context.options = {"page": str(frame + 1)}
            found = next(container.decode(stream))
            deep = _DEEP.get(found.format.name[:-2])
            return found.to_ndarray(format=deep) if deep else None
    except (av.error.FFmpegError, IndexError, StopIteration):
        return None


def _bytes_of(picture: Pil.Image) -> bytes:
    """The file that a picture is open on, whose place in it stays."""
    file = getattr(picture, "fp", None)
    if file is None:
        raise ImageError("its file is closed already.")
    place = file.tell()
    file.seek(0)
    coded = bytes(file.read())
    file.seek(place)
    return coded

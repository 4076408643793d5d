"""Colours of more than 8 bits, of which Pillow keeps the upper 8: read with OpenCV instead.

A camera's 12 bits in a file of 16 would turn nearly black, as its grey ones would; `depth` has the
rule for both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.depth import Range, find_range, say_range, to_eight_bits

_COLOURS = ("RGB", "RGBA", "RGBX", "LA")


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
    pixels = to_eight_bits(values[..., :3], value_range)
    if values.shape[2] == 4:
        pixels = np.dstack((pixels, (values[..., 3] >> 8).astype(np.uint8)))
    made = Pil.fromarray(pixels)
    made.getexif()[ExifTags.Base.Orientation] = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return made


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
    import cv2

    coded = np.frombuffer(_bytes_of(picture), np.uint8)
    if picture.format == "TIFF":
        decoded, pages = cv2.imdecodemulti(coded, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
        values = pages[0] if decoded and pages else None
    else:
        values = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED) if frame == 0 else None
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ImageError("its colours of 16 bits cannot be decoded; save it with 8.")
    order = [2, 1, 0, 3][: values.shape[2]]
    return np.asarray(values[..., order], np.uint16)


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

"""Masks as pictures: indexed, black and white, or the pixels that they cut out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from sam2_blocks.masks.rle import rle_crop, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.values import Hw, Image, Rle, UInt8Array

MOST_INDICES = 255
"""Of an indexed picture of 8 bits; more need 16 bits, and have no colours."""


def indexed_png(rles: Sequence[Rle], numbers: Sequence[int], image_hw: Hw) -> bytes:
    """Write the masks of a picture into one PNG.

    Where masks overlap the smaller one is on top, so that none is hidden behind what it lies in.

    Args:
        rles: masks at the picture's size.
        numbers: the value of each, 1 to 65535; 0 is background.
        image_hw: size of the picture.

    Returns:
        PNG of 8 bits with a palette, or of 16 bits if a number is over 255.

    Raises:
        ValueError: if a number is out of its range.
    """
    wrong = [number for number in numbers if not 1 <= number < 2**16]
    if wrong:
        raise ValueError(f"wants numbers of 1 to 65535 for masks, got {wrong[0]}")
    deep = max(numbers, default=0) > MOST_INDICES
    pixels = np.zeros(image_hw, np.uint16 if deep else np.uint8)
    masks = [rle.counts[1::2].sum() for rle in rles]
    for index in sorted(range(len(rles)), key=lambda index: -masks[index]):
        pixels[rle_to_mask(rles[index])] = numbers[index]
    picture = Pil.fromarray(pixels)
    if not deep:
        picture.putpalette(_palette().tobytes())
    return _png(picture)


def mask_png(rle: Rle) -> bytes:
    """Write one mask as a PNG of 0 and 255."""
    return _png(Pil.fromarray(rle_to_mask(rle).astype(np.uint8) * 255))


def cutout_png(image: Image, rle: Rle, *, padding_px: int = 0) -> bytes:
    """Write the pixels of one object, cut to its box, the rest transparent.

    Args:
        image: the picture.
        rle: its mask, with a pixel at least.
        padding_px: room around the box, as far as the picture reaches.
    """
    height, width = image.hw
    x0, y0, x1, y1 = rle_to_box_xyxy(rle) + np.array([-1, -1, 1, 1]) * padding_px
    box = np.array([max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)])
    inside = rle_to_mask(rle_crop(rle, box))
    pixels = image.pixels[box[1] : box[3] + 1, box[0] : box[2] + 1]
    alpha = inside.astype(np.uint8)[..., None] * 255
    return _png(Pil.fromarray(np.concatenate((pixels, alpha), axis=2)))


def _palette() -> UInt8Array:
    """Black, then colours that differ between neighbours: uint8, (256, 3).

    Source: the colour map of PASCAL VOC, as many viewers and data sets have it.
    """
    numbers = np.arange(256)
    colours: NDArray[np.int64] = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> channel) & 1) << (7 - bit)
        numbers >>= 3
    return colours.astype(np.uint8)


def _png(picture: Pil.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()

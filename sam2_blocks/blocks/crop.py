"""``image/crop@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, floor
from typing import Any, Literal, Protocol, cast

import numpy as np
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import settle_masks, to_rles
from sam2_blocks.masks.rle import rle_area, rle_crop, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.masks.windows import Window, cut, has_place, part_name
from sam2_blocks.values import Hw, Image, Rle

MOST_FILLED_PIXELS = 178_956_970
"""Of one picture's crops together, where they have pixels of their own."""


class CropItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    detections: sv.Detections
    padding: float
    square: bool
    min_size_px: int
    border: Literal["clip", "fill"]
    background: Literal["keep", "fill"]
    fill: int


class Crop:
    """Cut pictures around detections; a crop shares the picture's pixels where it can."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[CropItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_crop_or_error(item) for item in items]


def _crop_or_error(item: CropItem) -> Mapping[str, Any] | Exception:
    found = settle_masks(item.detections)
    kept = cast(sv.Detections, found[has_place(found, item.image.hw)])
    try:
        rles: Sequence[Rle | None] = to_rles(kept, item.image.hw) if kept.mask is not None else ()
    except ValueError as error:
        return error
    rles = rles or [None] * len(kept)
    if item.background == "fill" and None in rles:
        return ValueError("background: fill wants detections with masks. Keep the background.")
    windows = [
        _window(item, _pixels_of(box, rle)) for box, rle in zip(kept.xyxy, rles, strict=True)
    ]
    if "fill" in (item.border, item.background):
        pixels = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in windows)
        if pixels > MOST_FILLED_PIXELS:
            return ValueError(
                f"the {len(windows)} crops would have {pixels} pixels, more than "
                f"{MOST_FILLED_PIXELS}. Make fewer or smaller ones, or fill nothing."
            )
    crops = [
        _crop(item, index, window, rle)
        for index, (window, rle) in enumerate(zip(windows, rles, strict=True))
    ]
    return {"crops": crops, "detections": kept}


def _crop(item: CropItem, index: int, window: Window, rle: Rle | None) -> Image:
    crop = cut(item.image, window, name=part_name(item.image.id, "crop", index), fill=item.fill)
    if item.background == "keep" or rle is None:
        return crop
    pixels = np.full_like(crop.pixels, item.fill)
    x0, y0, x1, y1 = _inside(window, item.image.hw)
    mask = rle_to_mask(rle_crop(rle, (x0, y0, x1 - 1, y1 - 1)))
    within = (slice(y0 - window[1], y1 - window[1]), slice(x0 - window[0], x1 - window[0]))
    pixels[within][mask] = crop.pixels[within][mask]
    return replace(crop, pixels=pixels)


def _pixels_of(box: Any, rle: Rle | None) -> Window:
    """The pixels that a box touches, and those of its mask."""
    x0, y0, x1, y1 = floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3])
    if rle is not None and rle_area(rle):
        left, top, right, bottom = (int(edge) for edge in rle_to_box_xyxy(rle))
        x0, y0, x1, y1 = min(x0, left), min(y0, top), max(x1, right + 1), max(y1, bottom + 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _window(item: CropItem, box: Window) -> Window:
    """The pixels to cut out, by the padding, the shape and the size that are wanted."""
    margin = round(item.padding * max(box[2] - box[0], box[3] - box[1]))
    padded = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    if item.border == "clip":
        padded = _inside(padded, item.image.hw)
    width, height = padded[2] - padded[0], padded[3] - padded[1]
    side = max(width, height) if item.square else 0
    size = max(width, side, item.min_size_px), max(height, side, item.min_size_px)
    x0, x1 = _widened(padded[0], padded[2], size[0], item.image.hw[1], item.border)
    y0, y1 = _widened(padded[1], padded[3], size[1], item.image.hw[0], item.border)
    return x0, y0, x1, y1


def _widened(start: int, stop: int, size: int, edge: int, border: str) -> tuple[int, int]:
    """Widen a span evenly; with ``clip`` it is moved into the picture, and cut if it is wider."""
    start -= (size - (stop - start)) // 2
    if border == "clip":
        start = max(0, min(start, edge - size))
        return start, min(start + size, edge)
    return start, start + size


def _inside(window: Window, image_hw: Hw) -> Window:
    """The part of a window that is in the picture; one pixel at least."""
    height, width = image_hw
    x0, y0 = min(max(window[0], 0), width - 1), min(max(window[1], 0), height - 1)
    return x0, y0, max(min(window[2], width), x0 + 1), max(min(window[3], height), y0 + 1)

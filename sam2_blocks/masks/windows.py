"""Parts of a picture: cut out, turned, scaled; and what was found in them put back.

A picture that was made from another one knows how (`Image.parent`, an `Origin`), so that its boxes,
masks and key points have a way back, step by step. Boxes and points are positions in the plane, in
pixels from the top left corner; masks are pixels. What lies beyond the parent is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image as Pil

from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import (
    mask_to_rle,
    rle_area,
    rle_crop,
    rle_paste,
    rle_to_mask,
    rles_to_boxes_xyxy,
)
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import Hw, Image, Origin, Rle, UInt8Array

Window = tuple[int, int, int, int]

FILTERS = {
    "nearest": Pil.Resampling.NEAREST,
    "bilinear": Pil.Resampling.BILINEAR,
    "bicubic": Pil.Resampling.BICUBIC,
    "lanczos": Pil.Resampling.LANCZOS,
}
KEYPOINTS = "keypoints_xy"


# --- there ------------------------------------------------------------------------------------


def cut(image: Image, window: Window, *, name: str, fill: int = 0) -> Image:
    """Cut a window out of a picture; inside the picture the pixels are shared, not copied.

    Args:
        image: the picture.
        window: x0, y0, x1, y1 in its pixels; may reach beyond it, not be empty.
        name: id of the part.
        fill: grey value of what is beyond the picture, 0 to 255.
    """
    x0, y0, x1, y1 = window
    height, width = image.hw
    inside = image.pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    origin = Origin(image.id, image.hw, window, (y1 - y0, x1 - x0), parent=image.parent)
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        pixels: UInt8Array = np.full((y1 - y0, x1 - x0, 3), fill, np.uint8)
        left, top = max(-x0, 0), max(-y0, 0)
        pixels[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        inside = pixels
    return Image(inside, name, image.path, parent=origin)


def scale(image: Image, size_hw: Hw, *, method: str = "bilinear") -> Image:
    """Scale a picture.

    Args:
        image: the picture.
        size_hw: new size, 1 or more each.
        method: one of `FILTERS`; enlarging by a whole number with ``nearest`` is exact.
    """
    resized = Pil.fromarray(image.pixels).resize((size_hw[1], size_hw[0]), FILTERS[method])
    return replace(image, pixels=np.asarray(resized), parent=_whole(image, size_hw))


def turn(image: Image, turns: int) -> Image:
    """Turn a picture by quarter turns counterclockwise.

    Args:
        image: the picture.
        turns: how many; any whole number, 1 is 90 degrees.

    Returns:
        The turned picture, which knows by `Image.parent` how it was turned.
    """
    pixels = np.ascontiguousarray(np.rot90(image.pixels, turns))
    origin = replace(_whole(image, (pixels.shape[0], pixels.shape[1])), turns=turns % 4)
    return replace(image, pixels=pixels, parent=origin)


def _whole(image: Image, size_hw: Hw) -> Origin:
    height, width = image.hw
    return Origin(image.id, image.hw, (0, 0, width, height), size_hw, parent=image.parent)


# --- and back ---------------------------------------------------------------------------------


def boxes_to_parent(boxes_xyxy: NDArray[Any], origin: Origin) -> NDArray[np.float32]:
    """Move boxes of a part onto its parent.

    Args:
        boxes_xyxy: float, (N, 4), pixels of the part.
        origin: where the part was cut from.

    Returns:
        float32, (N, 4), pixels of the parent, within it.
    """
    corners = points_to_parent(np.asarray(boxes_xyxy, np.float64).reshape(-1, 2, 2), origin)
    low, high = corners.min(axis=1), corners.max(axis=1)
    edge = np.array(origin.hw[::-1], np.float64)
    return np.concatenate((low.clip(0, edge), high.clip(0, edge)), axis=1).astype(np.float32)


def points_to_parent(points_xy: NDArray[Any], origin: Origin) -> NDArray[np.float64]:
    """Move points of a part onto its parent.

    Args:
        points_xy: float, (…, 2), pixels of the part.
        origin: where the part was cut from.

    Returns:
        float64, (…, 2), pixels of the parent; they may lie outside it.
    """
    height, width = origin.window_hw
    u, v = np.moveaxis(np.asarray(points_xy, np.float64) / np.array(origin.scale_xy), -1, 0)
    x, y = ((u, v), (width - v, u), (width - u, height - v), (v, height - u))[origin.turns]
    return np.stack((x + origin.window_xyxy[0], y + origin.window_xyxy[1]), axis=-1)


def rle_to_parent(rle: Rle, origin: Origin) -> Rle:
    """Move a mask of a part onto its parent.

    A pixel of the parent is inside where its centre is. Where the part was not scaled, or enlarged
    by a whole number, nothing is lost.

    Args:
        rle: the mask, of the size of the part.
        origin: where the part was cut from.

    Returns:
        A mask of the size of the parent.

    Raises:
        ValueError: if the mask has not the size of the part.
    """
    if rle.size != tuple(origin.size_hw):
        got, wanted = rle.size[::-1], origin.size_hw[::-1]
        raise ValueError(
            f"the mask is {got[0]}x{got[1]} pixels, its picture {wanted[0]}x{wanted[1]}"
        )
    if origin.turns or rle.size != origin.window_hw:
        rle = _unscaled(rle, origin)
    x0, y0, x1, y1 = origin.window_xyxy
    height, width = origin.hw
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return Rle(origin.hw, np.array([height * width], np.int64))
    inside = rle_crop(rle, (left - x0, top - y0, right - 1 - x0, bottom - 1 - y0))
    return rle_paste(inside, (left, top), origin.hw)


def _unscaled(rle: Rle, origin: Origin) -> Rle:
    """A mask in the pixels of the window, not turned."""
    mask = np.rot90(rle_to_mask(rle), -origin.turns)
    rows, columns = (
        ((2 * np.arange(wanted) + 1) * given) // (2 * wanted)  # where the pixel's centre is
        for wanted, given in zip(origin.window_hw, mask.shape, strict=True)
    )
    return mask_to_rle(mask[np.ix_(rows, columns)])


def detections_to_parent(detections: sv.Detections, origin: Origin) -> sv.Detections:
    """Move detections of a part onto its parent: boxes, masks and key points.

    A box that fits its mask tightly becomes the tight box of the moved mask.

    Args:
        detections: of the part.
        origin: where the part was cut from.

    Returns:
        The same rows, in pixels of the parent.

    Raises:
        ValueError: if the masks have not the size of the part.
    """
    boxes = boxes_to_parent(detections.xyxy, origin)
    data = dict(detections.data)
    if KEYPOINTS in data:
        moved = points_to_parent(np.asarray(data[KEYPOINTS]), origin)
        data[KEYPOINTS] = moved.astype(np.asarray(data[KEYPOINTS]).dtype)
    mask = None
    if detections.mask is not None or "rle_mask" in data:
        data.pop("rle_mask", None)
        found = to_rles(detections)
        rles = [rle_to_parent(rle, origin) for rle in found]
        tight = (detections.xyxy == rles_to_boxes_xyxy(found)).all(axis=1)
        boxes = np.where(tight[:, None], rles_to_boxes_xyxy(rles), boxes).astype(np.float32)
        mask = MaskStack.from_rles(rles, origin.hw)
    return replace(detections, xyxy=boxes, mask=mask, data=data)


def join(parts: Sequence[sv.Detections], image_hw: Hw) -> sv.Detections:
    """Put detections of one picture together, in order; columns that only some have are left out.

    Args:
        parts: those without rows do not count.
        image_hw: size of the picture, for the masks.
    """
    full = [part for part in parts if len(part)]
    if not full:
        return _empty(parts[0]) if parts else sv.Detections.empty()
    names = [name for name in full[0].data if all(name in part.data for part in full)]
    masks = None
    if all(part.mask is not None for part in full):
        masks = MaskStack.from_rles([rle for part in full for rle in to_rles(part)], image_hw)
    return sv.Detections(
        xyxy=np.concatenate([part.xyxy for part in full]),
        mask=masks,
        confidence=_column([part.confidence for part in full]),
        class_id=_column([part.class_id for part in full]),
        tracker_id=_column([part.tracker_id for part in full]),
        data={
            name: np.concatenate([np.asarray(part.data[name]) for part in full]) for name in names
        },
    )


def _empty(part: sv.Detections) -> sv.Detections:
    """No rows, with the columns of a part; masks of no picture in particular are none."""
    return replace(part, mask=None)


def _column(columns: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    given = [column for column in columns if column is not None]
    return np.concatenate(given) if len(given) == len(columns) else None


def has_place(detections: sv.Detections, image_hw: Hw) -> NDArray[np.bool_]:
    """Say which detections have an area inside a picture.

    Args:
        detections: boxes, perhaps with masks.
        image_hw: size of the picture in pixels.

    Returns:
        bool, (N,): True where a box overlaps the picture, or a mask has a pixel.
    """
    height, width = image_hw
    x0, y0, x1, y1 = np.asarray(detections.xyxy, np.float64).T.reshape(4, -1)
    with np.errstate(invalid="ignore"):
        place = (x0 < width) & (y0 < height) & (x1 > 0) & (y1 > 0) & (x0 <= x1) & (y0 <= y1)
    place &= np.isfinite(detections.xyxy).all(axis=1)
    if detections.mask is not None:
        place |= np.array([rle_area(rle) > 0 for rle in to_rles(detections)], bool)
    return np.asarray(place, bool)


def part_name(image_id: str, what: str, index: int) -> str:
    """Name a part of a picture: ``photo.jpg`` becomes ``photo-crop3.jpg``.

    Args:
        image_id: name of the picture.
        what: kind of part, such as ``crop``.
        index: number of the part.
    """
    stem, dot, suffix = image_id.rpartition(".")
    if not dot or "/" in suffix:
        return f"{image_id}-{what}{index}"
    return f"{stem}-{what}{index}.{suffix}"

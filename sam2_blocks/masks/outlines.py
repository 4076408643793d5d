"""Outlines through border pixels, as OpenCV traces and fills them.

The form that most clients of polygons expect: they paint the pixels that an outline runs through,
too. Who takes it for the edges of pixels loses half a pixel all around; `polygons` has outlines
along edges, which are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.masks.opencv import outer_contours, simplify_contour
from sam2_blocks.masks.polygons import MultipolygonPolicy, rle_to_polygons
from sam2_blocks.masks.rle import rle_crop, rle_to_mask, rles_to_boxes_xyxy
from sam2_blocks.masks.tracing import Ring
from sam2_blocks.values import Int64Array, Rle

INSIDE = 0.05, 0.45
"""What becomes of the left and right edge of a pixel: cut off or rounded, both are its number."""

MOST_LOST = 0.005
"""Of a mask, by simplifying its outline for readers."""


def rle_to_outlines(rle: Rle, *, tolerance_px: float = 0.0) -> list[Int64Array]:
    """Trace the outer borders of a mask.

    Args:
        rle: one mask.
        tolerance_px: how far a simplified outline may be from the exact one.

    Returns:
        For each part, also of parts that touch at corners alone, int64 (P, 2), xy of pixels of the
        mask. ``cv2.fillPoly`` gives the mask back, its holes filled. None for an empty mask.

    Source: ``cv2.findContours(RETR_EXTERNAL, CHAIN_APPROX_SIMPLE)``.
    """
    [box] = rles_to_boxes_xyxy([rle])
    crop = rle_to_mask(rle_crop(rle, box)).view(np.uint8)
    found = outer_contours(crop)
    if tolerance_px:
        found = [simplify_contour(contour, tolerance_px) for contour in found]
    return [contour.reshape(-1, 2).astype(np.int64) + box[:2] for contour in found]


def painted_outlines(
    rle: Rle, *, tolerance_px: float, multipolygon_policy: MultipolygonPolicy = "all"
) -> list[Ring]:
    """Trace a mask for readers that paint the pixels an outline runs through, too.

    Corners lie in pixels of the mask, so that it does not matter whether a reader cuts off or
    rounds them; each ring is simple, also around parts that are one pixel wide, holes are bridged.

    Args:
        rle: the mask; an empty one has no outline.
        tolerance_px: how far an outline may be from the exact one. Where a small or thin mask would
            lose more than `MOST_LOST` of itself, it is less.
        multipolygon_policy: see `rle_to_polygons`.

    Returns:
        float64 (P, 2) each.
    """
    for tolerance in (tolerance_px, tolerance_px / 2, 0.0):
        traced = rle_to_polygons(
            rle,
            hole_policy="bridge",
            multipolygon_policy=multipolygon_policy,
            tolerance_px=tolerance,
        )
        rings = _move_into_pixels(traced.outer, rle)
        if not tolerance or painted_iou(rings, rle) >= 1 - MOST_LOST:
            break
    return rings


def painted_iou(rings: Sequence[Ring], rle: Rle) -> float:
    """Return how much of a mask those readers get: intersection over union.

    Args:
        rings: of `painted_outlines`.
        rle: the mask, which is not empty.
    """
    [box] = rles_to_boxes_xyxy([rle])
    mask = rle_to_mask(rle_crop(rle, box))
    painted = np.zeros(mask.shape, bool)
    for ring in rings:
        _paint(painted, (ring - box[:2]).astype(np.int32))
    return float((painted & mask).sum() / (painted | mask).sum())


def _paint(canvas: NDArray[np.bool_], corners_xy: NDArray[np.int32]) -> None:
    """Paint what is inside of a polygon, and the pixels that it runs through."""
    (left, top), (right, bottom) = corners_xy.min(axis=0), corners_xy.max(axis=0) + 1
    inside = sv.polygon_to_mask(corners_xy - (left, top), (right - left, bottom - top))
    canvas[top:bottom, left:right] |= inside.view(bool)


def _move_into_pixels(rings: Sequence[Ring], rle: Rle) -> list[Ring]:
    """Move outlines along the edges of pixels into the pixels of the mask beside them."""
    [box] = rles_to_boxes_xyxy([rle])
    mask = np.pad(rle_to_mask(rle_crop(rle, box)), 2)
    return [_move(ring - box[:2] + 2, mask) + box[:2] - 2 for ring in rings]


def _move(ring: Ring, mask: NDArray[np.bool_]) -> Ring:
    """Move each corner into the one of up to four pixels around it that says inside best."""
    after, before = np.floor(ring).astype(int), np.ceil(ring).astype(int) - 1
    x, y = (np.stack((before[:, axis], after[:, axis])) for axis in (0, 1))
    inside = mask[y[:, None], x[None]].astype(int)  # (2, 2, P): row, column
    sides = np.stack((inside[:, 1] - inside[:, 0], inside[1] - inside[0]))  # (xy, 2, P)
    sides = sides.sum(axis=1).T
    pinched = (sides == 0).all(axis=1)  # two of the four, across a corner
    inwards = np.roll(ring, 1, axis=0) + np.roll(ring, -1, axis=0) - 2 * ring
    sides[pinched] = np.sign(inwards[pinched]).astype(int)
    pixel = np.where(sides < 0, before, after)
    missed = pinched & ~mask[pixel[:, 1], pixel[:, 0]]
    pixel[missed, 0] = (before + after - pixel)[missed, 0]
    low, high = INSIDE
    moved: Ring = pixel + low + (high - low) * (ring - pixel)
    return moved

"""Polygons to run lengths: what a reader of outlines gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.values import Hw, Int64Array, Rle

_FAR = 2.0**52  # beyond, there are no halves between the floats


def polygons_to_rle(rings: Iterable[NDArray[np.floating]], size: Hw) -> Rle:
    """Fill rings: a pixel is inside when its centre is, by the even-odd rule.

    Written here because the fillers at hand answer another question: pycocotools rounds corners to
    a fifth of a pixel, and OpenCV and Pillow also paint the pixels that the outline touches.

    Args:
        rings: float, (P, 2) each, xy corners; holes are rings inside rings.
        size: (H, W) of the image; what lies outside is cut off.

    Raises:
        ValueError: if a corner is not finite, or so far away that its distance overflows.
    """
    return fill_parts([list(rings)], size)


def fill_parts(parts: Sequence[Sequence[NDArray[np.floating]]], size: Hw) -> Rle:
    """Fill the rings of each part by the even-odd rule; what any part covers is inside."""
    height, width = size
    rings = [(number, ring) for number, part in enumerate(parts) for ring in part if len(ring)]
    x, y, corner = column_crossings([ring for _, ring in rings], width)
    numbers = [number for number, _ in rings]
    part = np.repeat(np.array(numbers, np.int64), [len(ring) for _, ring in rings])[corner]
    order = np.lexsort((y, x, part))
    row = np.clip(np.ceil(y[order] - 0.5), 0, height).astype(np.int64)
    pixel = x[order] * height + row
    return _join_runs(pixel[::2], pixel[1::2], size)


def _join_runs(start: Int64Array, stop: Int64Array, size: Hw) -> Rle:
    """Make one mask of foreground runs that may overlap, in any order."""
    kept = start < stop
    order = np.argsort(start[kept])
    start, reached = start[kept][order], np.maximum.accumulate(stop[kept][order])
    is_first = np.ones(len(start), bool)
    is_first[1:] = start[1:] > reached[:-1]
    edges = np.stack((start[is_first], reached[np.roll(is_first, -1)]), axis=1)
    counts = np.diff(np.concatenate(([0], edges.ravel(), [size[0] * size[1]])))
    return Rle(size, counts if counts[-1] else counts[:-1])


def column_crossings(
    rings: Sequence[NDArray[np.floating]], width: int
) -> tuple[Int64Array, NDArray[np.float64], Int64Array]:
    """Find where rings, none empty, cross the middle of each pixel column.

    Returns:
        The column, the y there, and the number of the corner where the crossing edge starts.
    """
    if not rings:
        return np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64)
    points = np.concatenate(rings).astype(np.float64)
    if not (np.abs(points) < _FAR).all():
        raise ValueError(f"corners of polygons must be finite and nearer than {_FAR:g} pixels")
    following = points[next_in_ring(np.array([*map(len, rings)]))]
    ends = np.stack((points, following), axis=1)  # (E, 2, 2): edge, end, xy
    # From left to right, so that there and back along one path crosses at the very same y.
    backwards = ends[:, 0, 0] > ends[:, 1, 0]
    ends[backwards] = ends[backwards, ::-1]
    columns = np.clip(np.ceil(ends[:, :, 0] - 0.5), 0, width).astype(np.int64)  # (E, 2)
    lengths = columns[:, 1] - columns[:, 0]
    edge = np.repeat(np.arange(len(ends)), lengths)
    x = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - columns[:, 0], lengths)
    (x_left, y_left), (x_right, y_right) = ends[edge].transpose(1, 2, 0)
    slope = (y_right - y_left) / (x_right - x_left)
    return x, y_left + (x + 0.5 - x_left) * slope, edge


def next_in_ring(lengths: Int64Array) -> Int64Array:
    """For points of rings that stand one after another, index the next one around each ring."""
    stops = np.cumsum(lengths)
    following = np.arange(1, lengths.sum() + 1)
    following[stops - 1] = stops - lengths
    return following

"""Polygons to run lengths: what a reader of outlines gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
    if not rings:
        return _join_runs(np.empty(0, np.int64), np.empty(0, np.int64), size)
    lengths = np.array([len(ring) for _, ring in rings])
    x, y, corner = column_crossings(np.concatenate([ring for _, ring in rings]), lengths, width)
    part = np.repeat([number for number, _ in rings], lengths)[corner]
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
    points: NDArray[np.floating], lengths: Int64Array, width: int
) -> tuple[Int64Array, NDArray[np.float64], Int64Array]:
    """Find where rings, none empty, cross the middle of each pixel column.

    Args:
        points: float, (P, 2), xy corners of the rings, one ring after the other.
        lengths: int64, (R,), corners of each ring.
        width: number of columns.

    Returns:
        The column, the y there, and the number of the corner where the crossing edge starts.
    """
    points = points.astype(np.float64)
    if not (np.abs(points) < _FAR).all():
        raise ValueError(f"corners of polygons must be finite and nearer than {_FAR:g} pixels")
    following = points[next_in_ring(lengths)]
    ends = np.stack((points, following), axis=1)  # (E, 2, 2): edge, end, xy
    # From left to right, so that there and back along one path crosses at the very same y.
    backwards = ends[:, 0, 0] > ends[:, 1, 0]
    ends[backwards] = ends[backwards, ::-1]
    columns = np.clip(np.ceil(ends[:, :, 0] - 0.5), 0, width).astype(np.int64)  # (E, 2)
    counts = columns[:, 1] - columns[:, 0]
    edge = np.arange(len(ends)).repeat(counts)
    x = np.arange(len(edge)) - (counts.cumsum() - counts - columns[:, 0])[edge]
    (x_left, y_left), (x_right, y_right) = ends[edge].transpose(1, 2, 0)
    slope = (y_right - y_left) / (x_right - x_left)
    return x, y_left + (x + 0.5 - x_left) * slope, edge


def split_rings(points: NDArray[Any], lengths: Int64Array) -> list[NDArray[Any]]:
    """The points of each ring, where they stand one after another; views, not copies."""
    stops = lengths.cumsum().tolist()
    return [points[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def next_in_ring(lengths: Int64Array) -> Int64Array:
    """For points of rings that stand one after another, index the next one around each ring."""
    stops = lengths.cumsum()
    following = np.arange(1, int(stops[-1]) + 1)
    following[stops - 1] = stops - lengths
    return following

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
    """Fill the rings of each part by the even-odd rule; what any part covers is inside.

    Args:
        parts: each a list of rings: float, (P, 2), xy pixels.
        size: (H, W) of the image.

    Raises:
        ValueError: as `polygons_to_rle`.
    """
    return fill_masks([parts], [size])[0]


def fill_masks(
    masks: Sequence[Sequence[Sequence[NDArray[np.floating]]]], sizes: Sequence[Hw]
) -> list[Rle]:
    """Fill the parts of each mask, as `fill_parts` does; many small ones cost little more than one.

    Args:
        masks: N masks, each a list of parts.
        sizes: N times (H, W) of the image.

    Returns:
        N masks, in order.

    Raises:
        ValueError: as `polygons_to_rle`.
    """
    sizes_hw = np.array(sizes, np.int64).reshape(-1, 2)
    # Pixels of all masks stand in one row, with a gap after each that keeps runs apart.
    ends = np.cumsum(sizes_hw.prod(axis=1) + 1)
    parts = [(mask, part) for mask, of_mask in enumerate(masks) for part in of_mask]
    rings = [(n, mask, r) for n, (mask, part) in enumerate(parts) for r in part if len(r)]
    if not rings:
        return [Rle(size, np.array([size[0] * size[1]])) for size in sizes]
    numbers, mask_of_ring, corners = zip(*rings, strict=True)
    lengths = np.array([*map(len, corners)])
    of_corner = np.repeat(mask_of_ring, lengths)
    widths = sizes_hw[of_corner, 1]
    x, y, corner = column_crossings(np.concatenate(corners), lengths, widths)
    order = np.lexsort((y, x, np.repeat(numbers, lengths)[corner]))
    mask = of_corner[corner[order]]
    height = sizes_hw[mask, 0]
    row = np.minimum(np.maximum(np.ceil(y[order] - 0.5), 0), height).astype(np.int64)
    pixel = x[order] * height + row + np.append(0, ends)[mask]
    edges = _join_runs(pixel[::2], pixel[1::2])
    stops = edges.searchsorted(ends).tolist()
    starts, firsts = [0, *stops], [0, *ends.tolist()]
    return [
        _edges_to_rle(edges[start:stop] - first, size)
        for start, stop, first, size in zip(starts, stops, firsts, sizes, strict=False)
    ]


def _join_runs(start: Int64Array, stop: Int64Array) -> Int64Array:
    """Where foreground begins and ends by turns, of runs that may overlap, in any order."""
    kept = start < stop
    order = np.argsort(start[kept])
    start, reached = start[kept][order], np.maximum.accumulate(stop[kept][order])
    is_first = np.ones(len(start), bool)
    is_first[1:] = start[1:] > reached[:-1]
    edges: Int64Array = np.stack((start[is_first], reached[np.roll(is_first, -1)]), axis=1).ravel()
    return edges


def _edges_to_rle(edges: Int64Array, size: Hw) -> Rle:
    counts = np.diff(edges, prepend=0, append=size[0] * size[1])
    return Rle(size, counts if counts[-1] else counts[:-1])


def column_crossings(
    points: NDArray[np.floating], lengths: Int64Array, width: int | Int64Array
) -> tuple[Int64Array, NDArray[np.float64], Int64Array]:
    """Find where rings, none empty, cross the middle of each pixel column.

    Args:
        points: float, (P, 2), xy corners of the rings, one ring after the other.
        lengths: int64, (R,), corners of each ring.
        width: number of columns; or int64, (P,), for the edge from each corner on.

    Returns:
        Of each crossing the column, int64, (C,); the y there, float64, (C,); and the number of the
        corner where the crossing edge starts, int64, (C,).

    Raises:
        ValueError: if a corner is not finite, or too far away.
    """
    points = points.astype(np.float64)
    if not (np.abs(points) < _FAR).all():
        raise ValueError(f"corners of polygons must be finite and nearer than {_FAR:g} pixels")
    following = points[next_in_ring(lengths)]
    ends = np.stack((points, following), axis=1)  # (E, 2, 2): edge, end, xy
    # From left to right, so that there and back along one path crosses at the very same y.
    backwards = ends[:, 0, 0] > ends[:, 1, 0]
    ends[backwards] = ends[backwards, ::-1]
    columns = np.ceil(ends[:, :, 0] - 0.5)  # (E, 2)
    last = np.broadcast_to(width, len(columns))[:, None]
    columns = np.minimum(np.maximum(columns, 0), last).astype(np.int64)
    counts = columns[:, 1] - columns[:, 0]
    edge = np.arange(len(ends)).repeat(counts)
    x = np.arange(len(edge)) - (counts.cumsum() - counts - columns[:, 0])[edge]
    (x_left, y_left), (x_right, y_right) = ends[edge].transpose(1, 2, 0)
    slope = (y_right - y_left) / (x_right - x_left)
    return x, y_left + (x + 0.5 - x_left) * slope, edge


def split_rings(points: NDArray[Any], lengths: Int64Array) -> list[NDArray[Any]]:
    """Split points of rings that stand one after another into rings.

    Args:
        points: (P, …).
        lengths: int64, (R,), points of each ring.

    Returns:
        R views of the points.
    """
    stops = lengths.cumsum().tolist()
    return [points[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def next_in_ring(lengths: Int64Array) -> Int64Array:
    """For points of rings that stand one after another, index the next one around each ring."""
    stops = lengths.cumsum()
    following = np.arange(1, int(stops[-1]) + 1)
    following[stops - 1] = stops - lengths
    return following

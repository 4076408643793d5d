"""Rings of straight lines: where they touch at corners, and where they cross."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.filling import next_in_ring
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.values import Int64Array

Points = NDArray[np.float64]

CUT_PX = 1 / 32
"""What is cut off a corner, and how wide a slit is: exact in binary, and nothing to pycocotools."""

_PAIRS = 2**19  # looked at together


class Cut(NamedTuple):
    """Rings whose corners are all their own.

    Attributes:
        points: float64, (P, 2), corners of the rings, one ring after the other.
        lengths: int64, (R,), corners of each ring.
        origin: int64, (P,), the corner that each was before.
    """

    points: Points
    lengths: Int64Array
    origin: Int64Array


def cut_shared_corners(points: Points, lengths: Int64Array, groups: Int64Array) -> Cut:
    """Cut off corners that an earlier ring of the same group has, too.

    The two rings then touch nowhere. No pixel's centre is cut off: corners are whole pixels.

    Args:
        points: float64, (P, 2), corners of the rings, one ring after the other.
        lengths: int64, (R,), corners of each ring.
        groups: int64, (R,), of each ring.
    """
    group = np.repeat(groups, lengths)
    order = np.lexsort((np.arange(len(points)), points[:, 0], points[:, 1], group))
    same = (points[order][1:] == points[order][:-1]).all(axis=1)
    same &= group[order][1:] == group[order][:-1]
    shared = np.zeros(len(points), bool)
    shared[order[1:][same]] = True
    origin = np.repeat(np.arange(len(points)), 1 + shared)
    if not shared.any():
        return Cut(points, lengths, origin)
    after = next_in_ring(lengths)
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    made = points[origin]
    second = np.flatnonzero(np.diff(origin) == 0) + 1  # of the two that one corner became
    corner = origin[second]
    made[second - 1] += _step(points[before[corner]] - points[corner])
    made[second] += _step(points[after[corner]] - points[corner])
    return Cut(made, np.add.reduceat(1 + shared, np.cumsum(lengths) - lengths), origin)


def _step(line: Points) -> Points:
    made: Points = line * (CUT_PX / np.hypot(*line.T))[:, None]
    return made


def find_crossings(points: Points, lengths: Int64Array, groups: Int64Array) -> Int64Array:
    """Find the edges of rings that touch or cross others of their group, save at their own ends.

    Args:
        points: float64, (P, 2), corners of the rings, one ring after the other.
        lengths: int64, (R,), corners of each ring.
        groups: int64, (R,), of each ring.

    Returns:
        int64, numbers of edges in rising order; edge ``k`` starts at corner ``k``.
    """
    after = next_in_ring(lengths)
    group = np.repeat(groups, lengths)
    found = []
    for first, second in _near(points, points[after], group):
        look_up()
        adjacent = (after[first] == second) | (after[second] == first)
        starts = points[first], points[second]
        stops = points[after[first]], points[after[second]]
        crossing = np.where(adjacent, False, _meet(*starts, *stops))
        found += [first[crossing], second[crossing]]
    found.append(_spikes(points, after))
    return np.unique(np.concatenate(found))


def is_tangled(ring: Points) -> bool:
    """Whether a ring, (P, 2), touches or crosses itself."""
    return bool(len(find_crossings(ring, np.array([len(ring)]), np.zeros(1, np.int64))))


def count_crossings(ring: Points, *, by: float) -> int:
    """Count the pairs of edges of a ring, (P, 2), that cross for certain.

    Edges that touch, lie on each other or share an end do not: there rounding decides.

    Args:
        ring: corners.
        by: how far the ends of either edge must at least be from the line of the other one.
    """
    after = next_in_ring(np.array([len(ring)]))
    starts, stops = ring, ring[after]
    return sum(
        int((_divides(*one, *other, by=by) & _divides(*other, *one, by=by)).sum())
        for first, second in _near(starts, stops, np.zeros(len(ring), np.int64))
        for one, other in [((starts[first], stops[first]), (starts[second], stops[second]))]
    )


def _near(
    starts: Points, stops: Points, group: Int64Array
) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Pairs of edges of one group whose bounding boxes meet, some at a time."""
    low, high = np.minimum(starts, stops), np.maximum(starts, stops)
    shift = group * (high[:, 0].max() - low[:, 0].min() + 1)  # groups stand side by side
    order = np.argsort(low[:, 0] + shift, kind="stable")
    left, right = (low[:, 0] + shift)[order], (high[:, 0] + shift)[order]
    counts = np.searchsorted(left, right, side="right") - np.arange(len(left)) - 1
    for begin, end in _chunks(counts):
        count = counts[begin:end]
        first = np.repeat(np.arange(begin, end), count)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        first, second = order[first], order[second]
        meet = (low[first, 1] <= high[second, 1]) & (low[second, 1] <= high[first, 1])
        yield first[meet], second[meet]


def _chunks(counts: Int64Array) -> Iterator[tuple[int, int]]:
    """Stretches with about `_PAIRS` together."""
    total = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _PAIRS, side="right")))
        yield begin, end
        begin = end


def _meet(a: Points, c: Points, b: Points, d: Points) -> NDArray[np.bool_]:
    """Whether ``a b`` and ``c d`` have a point in common; their bounding boxes meet."""
    line, other = b - a, d - c
    apart = _cross(line, c - a) * _cross(line, d - a) > 0
    apart |= _cross(other, a - c) * _cross(other, b - c) > 0
    return ~apart


def _divides(a: Points, c: Points, b: Points, d: Points, *, by: float) -> NDArray[np.bool_]:
    """Whether ``b`` and ``d`` are on either side of the line ``a c``, and that far from it."""
    line = c - a
    far = by * np.hypot(*line.T)
    one, other = _cross(line, b - a), _cross(line, d - a)
    parted: NDArray[np.bool_] = (np.minimum(one, other) < -far) & (np.maximum(one, other) > far)
    return parted


def _spikes(points: Points, after: Int64Array) -> Int64Array:
    """Edges that lead back on each other."""
    line = points[after] - points
    following = line[after]
    back = (_cross(line, following) == 0) & (np.einsum("pc,pc->p", line, following) <= 0)
    return np.concatenate((np.flatnonzero(back), after[back]))


def _cross(a: Points, b: Points) -> Points:
    made: Points = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return made

"""Rings with fewer corners, which still touch nowhere.

Source: after Douglas and Peucker, 1973, the farthest corner of all rings first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sam2_blocks.masks.crossings import cut_shared_corners, find_crossings
from sam2_blocks.masks.filling import next_in_ring
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.masks.tracing import Part, Ring
from sam2_blocks.values import Int64Array

MIN_VERTICES = 4


class _Split(NamedTuple):
    """The corner farthest from the line that stands for a stretch of a ring."""

    minus_distance: float
    ring: int
    corner: int
    first: int
    last: int


def simplify(
    parts: Sequence[Part],
    *,
    tolerance_px: float,
    max_vertices: int | None,
    hole_cost: int,
    part_cost: int,
    together: bool,
) -> list[Part]:
    """Keep the corners that matter most, until all others lie within the tolerance.

    Each ring starts as the line between two far corners. Again and again the corner farthest from
    its line, over all rings, is put back. A ring appears with its third corner; the largest outer
    ring starts with four. Where rings then touch or cross, corners are put back until they do not.

    Args:
        parts: exact parts, the largest first.
        tolerance_px: stop when no corner is farther than this.
        max_vertices: stop before there would be more corners than this, save those that keep rings
            apart.
        hole_cost: corners needed for a hole to appear, with those of its bridge.
        part_cost: the same for a part after the first.
        together: whether rings of different parts are kept apart, too.
    """
    rings = [_from_far_corner(ring) for part in parts for ring in (part.outer, *part.holes)]
    costs = [cost for part in parts for cost in (part_cost, *(hole_cost for _ in part.holes))]
    budget = np.inf if max_vertices is None else max_vertices
    kept = _keep_far_corners(rings, costs, tolerance_px, budget)
    sizes = [1 + len(part.holes) for part in parts]
    numbers = np.zeros(len(parts), np.int64) if together else np.arange(len(parts))
    _untangle(rings, kept, np.repeat(numbers, sizes))
    simple = iter(ring[sorted(corners)] for ring, corners in zip(rings, kept, strict=True))
    return _drop_closed(
        Part(next(simple), tuple(next(simple) for _ in part.holes)) for part in parts
    )


def _keep_far_corners(
    rings: Sequence[Ring], costs: Sequence[int], tolerance_px: float, budget: float
) -> list[set[int]]:
    """Choose corners of each ring, two where it is not to be seen."""
    kept: list[set[int]] = []
    queue: list[_Split] = []
    for number, ring in enumerate(rings):
        look_up()
        far = int(_squared_distances(ring, ring[0]).argmax())
        splits = [_farthest(rings, number, *stretch) for stretch in ((0, far), (far, len(ring)))]
        kept.append({0, far})
        if number == 0:
            kept[0].update(split.corner for split in splits)
            budget -= MIN_VERTICES
            splits = [half for split in splits for half in _halves(rings, split)]
        queue += splits
    heapq.heapify(queue)
    while queue and -queue[0].minus_distance > tolerance_px:
        look_up()
        split = heapq.heappop(queue)
        corners = kept[split.ring]
        cost = costs[split.ring] if len(corners) == 2 else 1
        if cost <= budget:
            budget -= cost
            corners.add(split.corner)
            for half in _halves(rings, split):
                heapq.heappush(queue, half)
    return kept


def _untangle(rings: Sequence[Ring], kept: Sequence[set[int]], groups: Int64Array) -> None:
    """Put corners back where rings of a group touch or cross; exact ones never do."""
    while True:
        look_up()
        shown = [number for number, corners in enumerate(kept) if len(corners) > 2]
        corner = [np.array(sorted(kept[number])) for number in shown]
        lengths = np.array([*map(len, corner)], np.int64)
        points = np.concatenate([rings[n][c] for n, c in zip(shown, corner, strict=True)])
        stops = [np.append(c[1:], len(rings[n])) for n, c in zip(shown, corner, strict=True)]
        ring, first, last = np.repeat(shown, lengths), np.concatenate(corner), np.concatenate(stops)
        edges = _tangled(points, lengths, groups[shown])
        edges = edges[last[edges] - first[edges] > 1]
        if not len(edges):
            return
        for number, *stretch in zip(ring[edges], first[edges], last[edges], strict=True):
            kept[number].add(_farthest(rings, number, *stretch).corner)


def _tangled(points: Ring, lengths: Int64Array, groups: Int64Array) -> Int64Array:
    """Number the edges that touch or cross others, each by the corner where it starts."""
    cut = cut_shared_corners(points, lengths, groups)
    crossing = find_crossings(cut.points, cut.lengths, groups)
    edges = cut.origin[crossing]
    after = next_in_ring(lengths)
    before = np.argsort(after)
    is_cut = np.append(cut.origin[1:] == cut.origin[:-1], False)[crossing]
    return np.unique(np.concatenate((edges, before[edges[is_cut]])))


def _from_far_corner(ring: Ring) -> Ring:
    """Let a ring start at a corner that is far from another one."""
    return np.roll(ring, -int(_squared_distances(ring, ring[0]).argmax()), axis=0)


def _halves(rings: Sequence[Ring], split: _Split) -> tuple[_Split, _Split]:
    return (
        _farthest(rings, split.ring, split.first, split.corner),
        _farthest(rings, split.ring, split.corner, split.last),
    )


def _farthest(rings: Sequence[Ring], number: int, first: int, last: int) -> _Split:
    """Find the corner between two others that is farthest from the line that joins them."""
    ring = rings[number]
    if last - first < 2:
        return _Split(0.0, number, first, first, last)
    start, line = ring[first], ring[last % len(ring)] - ring[first]
    offset = ring[first + 1 : last] - start
    along = np.minimum(np.maximum(offset @ (line / (line @ line)), 0), 1)
    away = offset - along[:, None] * line
    squared = np.einsum("pc,pc->p", away, away)
    farthest = int(squared.argmax())
    return _Split(-math.sqrt(squared[farthest]), number, first + 1 + farthest, first, last)


def _drop_closed(parts: Iterable[Part]) -> list[Part]:
    """Drop the rings that shrank to a line, and holes together with their outer ring."""
    return [
        Part(part.outer, tuple(hole for hole in part.holes if len(hole) > 2))
        for part in parts
        if len(part.outer) > 2
    ]


def _squared_distances(ring: Ring, point: Ring) -> Ring:
    squared: Ring = ((ring - point) ** 2).sum(axis=1)
    return squared

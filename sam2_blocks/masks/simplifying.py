"""Rings with fewer corners, which still touch nowhere.

Source: after Douglas and Peucker, 1973, the farthest corner of all rings first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.crossings import Points, cut_shared_corners, find_crossings
from sam2_blocks.masks.filling import next_in_ring, split_rings
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.masks.tracing import Part
from sam2_blocks.values import Int64Array

MIN_VERTICES = 4

Flags = NDArray[np.bool_]


class _Rings(NamedTuple):
    """Rings one after the other, each from a corner that is far from another one.

    Attributes:
        points: float64, (P, 2), the corners; the first one of a ring is also its last.
        starts: int64, (R,), where each begins.
        stops: int64, (R,), where that corner is again.
        fars: int64, (R,), the corner that is far from it.
    """

    points: Points
    starts: Int64Array
    stops: Int64Array
    fars: Int64Array


class _Stretches(NamedTuple):
    """Stretches of rings, each with corners between its ends.

    Attributes:
        first: int64, (S,), where each begins in the points of all rings.
        last: int64, (S,), where it ends.
        corner: int64, (S,), the corner between, farthest from the line that joins the two.
        distance: float64, (S,), of that corner.
    """

    first: Int64Array
    last: Int64Array
    corner: Int64Array
    distance: NDArray[np.float64]


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
    rings = _from_far_corners(_rings_of(parts))
    if max_vertices is None:
        kept = _keep_far(rings, [0], tolerance_px)
    else:
        costs = [cost for part in parts for cost in (part_cost, *(hole_cost for _ in part.holes))]
        kept = _keep_farthest(rings, costs, tolerance_px, max_vertices)
    groups = np.zeros(len(parts), np.int64) if together else np.arange(len(parts))
    return _drop_closed(_with_corners(parts, rings, kept, groups))


def simplify_masks(masks: Sequence[Sequence[Part]], *, tolerance_px: float) -> list[list[Part]]:
    """Simplify the parts of each mask, one apart from the other; see `simplify`.

    Many small masks cost little more than one.
    """
    parts = [part for mask in masks for part in mask]
    if not parts:
        return [[] for _ in masks]
    rings = _from_far_corners(_rings_of(parts))
    counts = [len(_rings_of(mask)) for mask in masks]
    largest = [first for first, n in zip(accumulate(counts, initial=0), counts, strict=False) if n]
    kept = _keep_far(rings, largest, tolerance_px)
    made = iter(_with_corners(parts, rings, kept, np.arange(len(parts))))
    return [_drop_closed(islice(made, len(mask))) for mask in masks]


def _rings_of(parts: Sequence[Part]) -> list[Points]:
    return [ring for part in parts for ring in (part.outer, *part.holes)]


def _with_corners(
    parts: Sequence[Part], rings: _Rings, kept: Flags, groups: Int64Array
) -> list[Part]:
    """The parts with the corners that are kept, and more of them where rings of a group meet."""
    _untangle(rings, kept, np.repeat(groups, [1 + len(part.holes) for part in parts]))
    corner, lengths = _corners(rings, kept)
    simple = iter(split_rings(rings.points[corner], lengths))
    return [Part(next(simple), tuple(next(simple) for _ in part.holes)) for part in parts]


def _from_far_corners(rings: Sequence[Points]) -> _Rings:
    points = np.concatenate(rings)
    lengths = np.array([*map(len, rings)])
    begins = np.cumsum(lengths) - lengths
    first = _farthest_from(points, begins, lengths, begins) - begins
    starts = begins + np.arange(len(rings))
    turn = np.arange(len(points) + len(rings)) + np.repeat(first - starts, lengths + 1)
    points = points[turn % np.repeat(lengths, lengths + 1) + np.repeat(begins, lengths + 1)]
    fars = _farthest_from(points, starts, lengths + 1, starts)
    return _Rings(points, starts, starts + lengths, fars)


def _keep_far(rings: _Rings, largest: Sequence[int], tolerance_px: float) -> Flags:
    """Choose all corners that are far, all stretches of a depth at once.

    Where there may be as many as there are, it does not matter which one is chosen first.
    """
    kept = _keep_ends(rings)
    stretches = _split(rings.points, *_both_ways(rings))
    starts_with_four = np.zeros(len(rings.starts), bool)
    starts_with_four[largest] = True
    is_far = stretches.distance > tolerance_px
    is_far |= starts_with_four[_number_of(rings, stretches.first)]
    while is_far.any():
        look_up()
        kept[stretches.corner[is_far]] = True
        stretches = _halves(rings.points, stretches, is_far)
        is_far = stretches.distance > tolerance_px
    return kept


def _keep_farthest(
    rings: _Rings, costs: Sequence[int], tolerance_px: float, budget: float
) -> Flags:
    """Choose corners one by one, the farthest first, until there may be no more."""
    kept = _keep_ends(rings)
    shown = {0}
    budget -= MIN_VERTICES
    stretches = _split(rings.points, *_both_ways(rings))
    is_first = stretches.first < rings.stops[0]
    kept[stretches.corner[is_first]] = True
    queue = [*_entries(stretches, ~is_first)]
    queue += _entries(_halves(rings.points, stretches, is_first))
    heapq.heapify(queue)
    while queue and -queue[0][0] > tolerance_px:
        look_up()
        minus_distance, corner, first, last = heapq.heappop(queue)
        ring = int(_number_of(rings, first))
        cost = 1 if ring in shown else costs[ring]
        if cost <= budget:
            budget -= cost
            shown.add(ring)
            kept[corner] = True
            split = _Stretches(*(np.array([n]) for n in (first, last, corner, -minus_distance)))
            for entry in _entries(_halves(rings.points, split)):
                heapq.heappush(queue, entry)
    return kept


def _number_of(rings: _Rings, corner: Any) -> Any:
    """The ring of a corner, or of each of many."""
    return np.searchsorted(rings.starts, corner, side="right") - 1


def _keep_ends(rings: _Rings) -> Flags:
    kept = np.zeros(len(rings.points), bool)
    kept[rings.starts] = kept[rings.fars] = True
    return kept


def _both_ways(rings: _Rings) -> tuple[Int64Array, Int64Array]:
    """The two stretches of each ring, from its start to the far corner and back."""
    first = np.concatenate((rings.starts, rings.fars))
    return first, np.concatenate((rings.fars, rings.stops))


def _halves(points: Points, whole: _Stretches, chosen: Flags | slice = slice(None)) -> _Stretches:
    """Split stretches at their farthest corners."""
    first, last, corner, _ = (of[chosen] for of in whole)
    return _split(points, np.concatenate((first, corner)), np.concatenate((corner, last)))


def _entries(
    stretches: _Stretches, chosen: Flags | slice = slice(None)
) -> Iterator[tuple[float, int, int, int]]:
    """Stretches as a heap takes them: the farthest corner is the least."""
    first, last, corner, distance = (of[chosen].tolist() for of in stretches)
    return zip((-far for far in distance), corner, first, last, strict=True)


def _untangle(rings: _Rings, kept: Flags, groups: Int64Array) -> None:
    """Put corners back where rings of a group touch or cross; exact ones never do."""
    while True:
        look_up()
        corner, lengths = _corners(rings, kept)
        shown = lengths > 2
        corner, lengths = corner[np.repeat(shown, lengths)], lengths[shown]
        after = np.append(corner[1:], 0)
        after[np.cumsum(lengths) - 1] = rings.stops[shown]
        edges = _tangled(rings.points[corner], lengths, groups[shown])
        edges = edges[after[edges] - corner[edges] > 1]
        if not len(edges):
            return
        kept[_split(rings.points, corner[edges], after[edges]).corner] = True


def _corners(rings: _Rings, kept: Flags) -> tuple[Int64Array, Int64Array]:
    """The corners that are kept, and how many of them are each ring's."""
    return np.flatnonzero(kept), np.add.reduceat(kept, rings.starts, dtype=np.int64)


def _tangled(points: Points, lengths: Int64Array, groups: Int64Array) -> Int64Array:
    """Number the edges that touch or cross others, each by the corner where it starts."""
    cut = cut_shared_corners(points, lengths, groups)
    crossing = find_crossings(cut.points, cut.lengths, groups)
    edges = cut.origin[crossing]
    after = next_in_ring(lengths)
    before = np.argsort(after)
    is_cut = np.append(cut.origin[1:] == cut.origin[:-1], False)[crossing]
    return np.unique(np.concatenate((edges, before[edges[is_cut]])))


def _split(points: Points, first: Int64Array, last: Int64Array) -> _Stretches:
    """Find in each stretch the corner farthest from its line; those without any are left out."""
    between = (last - first > 1).nonzero()[0]
    if not len(between):
        return _Stretches(between, between, between, np.empty(0))
    first, last = first[between], last[between]
    lengths = last - first - 1
    begins = lengths.cumsum() - lengths
    number = np.arange(len(first)).repeat(lengths)
    at = np.arange(len(number)) + (first + 1 - begins)[number]
    start = points[first]
    line = points[last] - start
    offset = points[at] - start[number]
    along = _dot(offset, (line / _dot(line, line)[:, None])[number])
    away = offset - np.minimum(np.maximum(along, 0), 1)[:, None] * line[number]
    squared = _dot(away, away)
    farthest = _first_largest(squared, begins, number)
    return _Stretches(first, last, at[farthest], np.sqrt(squared[farthest]))


def _farthest_from(
    points: Points, begins: Int64Array, lengths: Int64Array, corner: Int64Array
) -> Int64Array:
    """Find in each ring the corner farthest from another one."""
    number = np.arange(len(lengths)).repeat(lengths)
    offset = points - points[corner][number]
    return _first_largest(_dot(offset, offset), begins, number)


def _first_largest(
    values: NDArray[np.float64], begins: Int64Array, number: Int64Array
) -> Int64Array:
    """Where the first of the largest values of each stretch is; none is empty.

    Args:
        values: of all stretches.
        begins: where each begins.
        number: the stretch of each value.
    """
    largest = np.maximum.reduceat(values, begins)
    at = (values == largest[number]).nonzero()[0]
    found: Int64Array = at[at.searchsorted(begins)]
    return found


def _dot(one: Points, other: Points) -> NDArray[np.float64]:
    return one[:, 0] * other[:, 0] + one[:, 1] * other[:, 1]


def _drop_closed(parts: Iterable[Part]) -> list[Part]:
    """Drop the rings that shrank to a line, and holes together with their outer ring."""
    return [
        Part(part.outer, tuple(hole for hole in part.holes if len(hole) > 2))
        for part in parts
        if len(part.outer) > 2
    ]

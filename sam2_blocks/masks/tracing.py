"""Run lengths to rings along pixel edges, each visiting a corner once: one part after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.filling import column_crossings, next_in_ring, split_rings
from sam2_blocks.masks.rle import Spans
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.values import Int64Array

Ring = NDArray[np.float64]
"""float64, (P, 2): xy corners, not closed; outer rings run clockwise on the screen, holes not."""

_TURNS = 4096  # of a loop, until it looks up again


@dataclass(frozen=True, eq=False)
class Part:
    """One connected part of a mask.

    Attributes:
        outer: its outline.
        holes: rings that are cut out of it.
    """

    outer: Ring
    holes: tuple[Ring, ...]


def trace_parts(spans: Spans) -> list[Part]:
    """Follow the pixel edges around each connected part; the largest outer ring comes first."""
    return trace_masks([spans])[0]


def trace_masks(masks: Sequence[Spans]) -> list[list[Part]]:
    """Trace the parts of each mask, see `trace_parts`; many small masks cost little more than one.

    Every span has two horizontal edges: number ``2 k`` above span ``k``, walked to the right, and
    ``2 k + 1`` below it, walked to the left. Foreground is thus always on the right hand.
    """
    spans, lefts = _side_by_side(masks)
    found: list[list[tuple[float, Part]]] = [[] for _ in masks]
    if len(spans.x):
        tails, heads = _horizontal_edges(spans)
        cycles = _follow(_successors(spans, tails, heads))
        mask = np.searchsorted(lefts, tails[[cycle[0] for cycle in cycles], 0], side="right") - 1
        rings = _split_at_pinches(_corners(cycles, tails, heads, lefts[mask]))
        groups = _group_by_span(cycles, len(tails))
        parts = _parts_of([[ring for one in group for ring in rings[one]] for group in groups])
        for group, part in zip(groups, parts, strict=True):
            found[mask[group[0]]].append(part)
    return [[part for _, part in sorted(of, key=itemgetter(0), reverse=True)] for of in found]


def _side_by_side(masks: Sequence[Spans]) -> tuple[Spans, Int64Array]:
    """Put masks beside each other, none touching the next one; with the first column of each."""
    widths = [int(spans.x.max(initial=-1)) + 2 for spans in masks]
    lefts = np.concatenate(([0], np.cumsum(widths)[:-1])).astype(np.int64)
    if len(masks) == 1:
        return masks[0], lefts
    x = [spans.x + left for spans, left in zip(masks, lefts.tolist(), strict=True)]
    starts, stops = [spans.y_start for spans in masks], [spans.y_stop for spans in masks]
    return Spans(*map(np.concatenate, (x, starts, stops))), lefts


def _parts_of(rings: Sequence[Sequence[Ring]]) -> Iterator[tuple[float, Part]]:
    """The part that some rings bound, and the area of the outer one, which is the largest."""
    areas = iter(_signed_areas([ring for of_part in rings for ring in of_part]))
    for of_part in rings:
        look_up()
        ranked = sorted(zip(of_part, areas, strict=False), key=itemgetter(1))  # holes are negative
        *holes, (outer, area) = ranked
        yield area, Part(outer, tuple(hole for hole, _ in holes))


def _horizontal_edges(spans: Spans) -> tuple[Int64Array, Int64Array]:
    """Return where each edge starts and ends: int64, (2 K, 2) xy."""
    top = np.stack((spans.x, spans.y_start), axis=1)
    bottom = np.stack((spans.x, spans.y_stop), axis=1)
    right = np.array([1, 0])
    tails = np.stack((top, bottom + right), axis=1).reshape(-1, 2)
    heads = np.stack((top + right, bottom), axis=1).reshape(-1, 2)
    return tails, heads


def _successors(spans: Spans, tails: Int64Array, heads: Int64Array) -> Int64Array:
    """Find for each horizontal edge the one that follows it around the foreground.

    On each vertical grid line sort the ends of the edges from both sides by y. Coverage left and
    right of the line differs exactly between the first and second, third and fourth, …, so each
    such pair bounds a vertical edge (of length 0 where the outline goes straight on) and is one
    head and one tail. Where two pixels touch only at a corner, taking the end below a span before
    the end above the next one keeps them apart.
    """
    count = len(tails)
    points = np.concatenate((tails, heads))
    is_top = np.tile([True, False], count)
    pairs = np.lexsort((is_top, points[:, 1], points[:, 0])).reshape(-1, 2)
    first_is_head = pairs[:, 0] >= count
    head = np.where(first_is_head, pairs[:, 0], pairs[:, 1]) - count
    tail = np.where(first_is_head, pairs[:, 1], pairs[:, 0])
    successors = np.empty(count, np.int64)
    successors[head] = tail
    return successors


def _follow(successors: Int64Array) -> list[list[int]]:
    """Split a permutation into its cycles."""
    following = successors.tolist()
    cycles = []
    for start in range(len(following)):
        if start % _TURNS == 0:
            look_up()
        cycle = []
        edge = start
        while following[edge] >= 0:
            cycle.append(edge)
            following[edge], edge = -1, following[edge]
        if cycle:
            cycles.append(cycle)
    return cycles


def _group_by_span(rings: Sequence[list[int]], edge_count: int) -> list[list[int]]:
    """Gather the numbers of the rings of each connected part: those that bound the same spans."""
    ring_of_edge = np.empty(edge_count, np.int64)
    ring_of_edge[np.concatenate(rings)] = np.repeat(np.arange(len(rings)), [*map(len, rings)])
    leader = list(range(len(rings)))

    def find(ring: int) -> int:
        while leader[ring] != ring:
            leader[ring] = ring = leader[leader[ring]]
        return ring

    for top, bottom in set(
        zip(ring_of_edge[::2].tolist(), ring_of_edge[1::2].tolist(), strict=True)
    ):
        leader[find(top)] = find(bottom)
    groups: dict[int, list[int]] = {}
    for number in range(len(rings)):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())


def _corners(
    rings: Sequence[list[int]], tails: Int64Array, heads: Int64Array, lefts: Int64Array
) -> list[Ring]:
    """Keep the points of each ring where it turns, x from its left on."""
    lengths = np.array([*map(len, rings)])
    edges = np.concatenate(rings)
    ends, starts = heads[edges], tails[edges[next_in_ring(lengths)]]
    turns = ends[:, 1] != starts[:, 1]
    corners = np.stack((ends[turns], starts[turns]), axis=1).reshape(-1, 2)
    counts = 2 * np.add.reduceat(turns, np.cumsum(lengths) - lengths, dtype=np.int64)
    corners[:, 0] -= lefts.repeat(counts)
    return split_rings(corners.astype(np.float64), counts)


def _split_at_pinches(outlines: Sequence[Ring]) -> list[list[Ring]]:
    """Cut each ring that visits a corner twice into rings that visit each corner once."""
    pinched = _find_pinched(outlines)
    return [
        _split_at_pinch(corners) if number in pinched else [corners]
        for number, corners in enumerate(outlines)
    ]


def _find_pinched(outlines: Sequence[Ring]) -> set[int]:
    """Find the rings that visit a corner twice."""
    numbers = np.repeat(np.arange(len(outlines)), [*map(len, outlines)])
    x, y = np.concatenate(outlines).T
    order = np.lexsort((x, y, numbers))
    x, y, numbers = x[order], y[order], numbers[order]
    twice = (x[1:] == x[:-1]) & (y[1:] == y[:-1]) & (numbers[1:] == numbers[:-1])
    return set(numbers[1:][twice].tolist())


def _split_at_pinch(corners: Ring) -> list[Ring]:
    rings: list[Ring] = []
    path: list[tuple[float, float]] = []
    position: dict[tuple[float, float], int] = {}
    for turn, (x, y) in enumerate(corners.tolist()):
        if turn % _TURNS == 0:
            look_up()
        if (x, y) in position:
            loop = path[position[x, y] :]
            del path[position[x, y] :]
            for point in loop:
                del position[point]
            rings.append(np.array(loop, np.float64))
        position[x, y] = len(path)
        path.append((x, y))
    rings.append(np.array(path, np.float64))
    return rings


def _signed_areas(rings: Sequence[Ring]) -> list[float]:
    """Shoelace formula; positive for outer rings. Exact, since corners are whole pixels."""
    lengths = np.array([*map(len, rings)])
    points = np.concatenate(rings)
    (x, y), (next_x, next_y) = points.T, points[next_in_ring(lengths)].T
    doubled = np.add.reduceat(x * next_y - y * next_x, np.cumsum(lengths) - lengths)
    areas: list[float] = (doubled / 2).tolist()
    return areas


def outermost(parts: Sequence[Part]) -> list[Part]:
    """Leave out the parts that lie inside others once holes are filled; the rings are exact."""
    if len(parts) < 2:
        return list(parts)
    rings = [part.outer for part in parts]
    points = np.concatenate(rings)
    lengths = np.array([*map(len, rings)])
    x, y, corner = column_crossings(points, lengths, int(points[:, 0].max()))
    following = points[next_in_ring(lengths)]
    order = np.lexsort((y, x))
    # Outer rings run clockwise: downwards, an edge that goes to the right leads inside.
    steps = np.sign(following[:, 0] - points[:, 0])[corner[order]]
    ring_of_corner = np.repeat(np.arange(len(rings)), lengths)
    enters_from_outside = (steps > 0) & (np.cumsum(steps) == 1)
    outer = np.unique(ring_of_corner[corner[order][enters_from_outside]])
    return [parts[number] for number in outer.tolist()]

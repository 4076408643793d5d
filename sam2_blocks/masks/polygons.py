"""Outlines of masks: run lengths to polygons; `filling` leads back.

Outlines run along pixel edges: pixel ``(x, y)`` is the square from ``(x, y)`` to
``(x + 1, y + 1)``, and it belongs to a polygon when its centre does (even-odd rule). So an outline
that is not simplified gives its mask back exactly, even for one pixel, a hole, or parts that touch
at a corner. Foreground is connected along edges, not over corners, and every ring is simple until
it is bridged or simplified.

An outline is a lossy form as soon as it is simplified or holes are filled; `Polygons.iou` says how
lossy. Run lengths are the exact form of a mask.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.filling import column_crossings, fill_parts, next_in_ring
from sam2_blocks.masks.rle import Spans, rle_iou, rle_to_spans
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.values import Hw, Int64Array, Rle

Ring = NDArray[np.float64]
"""float64, (P, 2): xy corners, not closed; outer rings run clockwise on the screen, holes not."""

HolePolicy = Literal["keep", "bridge", "fill"]
MultipolygonPolicy = Literal["all", "bridge", "largest"]

_MIN_VERTICES = 4
_TURNS = 4096  # of a loop, until it looks up again
_SHORT_BRIDGES = 500  # rings of a part that are joined along short paths


@dataclass(frozen=True, eq=False)
class Polygons:
    """The outline of one mask.

    Attributes:
        size: (H, W) of the image.
        outer: outer rings, the largest first.
        holes: for each outer ring, the rings cut out of it.
        iou: intersection over union with the mask it was made from, as readers fill it: each outer
            ring without its holes, by the even-odd rule, and all of these together.
    """

    size: Hw
    outer: tuple[Ring, ...]
    holes: tuple[tuple[Ring, ...], ...]
    iou: float

    @property
    def rings(self) -> tuple[Ring, ...]:
        """All rings, each outer ring followed by its holes."""
        parts = zip(self.outer, self.holes, strict=True)
        return tuple(ring for outer, holes in parts for ring in (outer, *holes))

    @property
    def vertex_count(self) -> int:
        """Number of corners of all rings together."""
        return sum(len(ring) for ring in self.rings)

    def to_coco_segmentation(self) -> list[list[float]]:
        """Flatten to the polygon form of a COCO annotation: one ``[x, y, x, y, …]`` per part.

        Raises:
            ValueError: if a part has holes, which that form cannot say.
        """
        if any(self.holes):
            raise ValueError(
                "COCO polygons have no holes; use hole_policy='bridge' (exact) or 'fill', "
                "or export the mask as RLE"
            )
        return [ring.ravel().tolist() for ring in self.outer]


@dataclass(frozen=True, eq=False)
class _Part:
    """One connected part of a mask."""

    outer: Ring
    holes: tuple[Ring, ...]


def rle_to_polygons(
    rle: Rle,
    *,
    hole_policy: HolePolicy = "keep",
    multipolygon_policy: MultipolygonPolicy = "all",
    tolerance_px: float = 0.0,
    max_vertices: int | None = None,
) -> Polygons:
    """Trace the outline of a mask.

    Args:
        rle: the mask; an empty one has no rings.
        hole_policy: ``keep`` returns holes as rings of their own. ``bridge`` joins each hole to its
            outer ring by a path of zero width, for formats with one ring a part, such as COCO;
            nothing is lost. ``fill`` drops holes, and what lies inside them.
        multipolygon_policy: ``all`` returns each connected part. ``bridge`` joins the parts to one
            ring in the same way, for formats with one ring an object, such as YOLO. ``largest``
            keeps the part with the largest outer ring.
        tolerance_px: the outline may move by at most this many pixels; 0 is exact. Parts and
            holes that such a move can close disappear, save the largest part.
        max_vertices: most corners of all rings together; the most significant ones are kept.

    Raises:
        ValueError: if a policy is unknown, ``tolerance_px`` is negative or not finite, or
            ``max_vertices`` is below 4.

    Source: simplified after Douglas and Peucker, 1973, the farthest corner of all rings first.
    """
    _check_options(hole_policy, multipolygon_policy, tolerance_px, max_vertices)
    parts = _trace_parts(rle_to_spans(rle))
    if multipolygon_policy == "largest":
        parts = parts[:1]
    if hole_policy == "fill":
        parts = _outermost([_Part(part.outer, ()) for part in parts])
    if parts and (tolerance_px > 0 or max_vertices is not None):
        parts = _simplify(
            parts,
            tolerance_px=tolerance_px,
            max_vertices=max_vertices,
            hole_cost=5 if hole_policy == "bridge" else 3,  # a bridge repeats its two corners
            part_cost=5 if multipolygon_policy == "bridge" else 3,
        )
    if hole_policy == "bridge":
        parts = [_Part(_bridge((part.outer, *part.holes)), ()) for part in parts]
    if multipolygon_policy == "bridge" and parts:
        holes = tuple(hole for part in parts for hole in part.holes)
        parts = [_Part(_bridge([part.outer for part in parts]), holes)]
    return _measured(parts, rle)


def _measured(parts: Sequence[_Part], rle: Rle) -> Polygons:
    iou = rle_iou(rle, fill_parts([[part.outer, *part.holes] for part in parts], rle.size))
    outer, holes = tuple(part.outer for part in parts), tuple(part.holes for part in parts)
    return Polygons(rle.size, outer, holes, iou)


def _check_options(
    hole_policy: str, multipolygon_policy: str, tolerance_px: float, max_vertices: int | None
) -> None:
    for name, value, choices in (
        ("hole_policy", hole_policy, ("keep", "bridge", "fill")),
        ("multipolygon_policy", multipolygon_policy, ("all", "bridge", "largest")),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if not 0 <= tolerance_px < np.inf:
        raise ValueError(f"tolerance_px must be 0 or a positive number, got {tolerance_px}")
    if max_vertices is not None and max_vertices < _MIN_VERTICES:
        raise ValueError(f"max_vertices must be at least {_MIN_VERTICES}, got {max_vertices}")


# --- tracing ----------------------------------------------------------------------------------


def _trace_parts(spans: Spans) -> list[_Part]:
    """Follow the pixel edges around each connected part; the largest outer ring comes first.

    Every span has two horizontal edges: number ``2 k`` above span ``k``, walked to the right, and
    ``2 k + 1`` below it, walked to the left. Foreground is thus always on the right hand.
    """
    if len(spans.x) == 0:
        return []
    tails, heads = _horizontal_edges(spans)
    cycles = _follow(_successors(spans, tails, heads))
    rings = _split_at_pinches(_corners(cycles, tails, heads))
    of_parts = [
        [ring for number in members for ring in rings[number]]
        for members in _group_by_span(cycles, len(tails))
    ]
    areas = iter(_signed_areas([ring for of_part in of_parts for ring in of_part]))
    parts = []
    for of_part in of_parts:
        look_up()
        ranked = sorted(zip(of_part, areas, strict=False), key=itemgetter(1))  # holes are negative
        *holes, (outer, area) = ranked
        parts.append((area, _Part(outer, tuple(hole for hole, _ in holes))))
    return [part for _, part in sorted(parts, key=itemgetter(0), reverse=True)]


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

    for top, bottom in np.unique(ring_of_edge.reshape(-1, 2), axis=0).tolist():
        leader[find(top)] = find(bottom)
    groups: dict[int, list[int]] = {}
    for number in range(len(rings)):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())


def _corners(rings: Sequence[list[int]], tails: Int64Array, heads: Int64Array) -> list[Int64Array]:
    """Keep the points of each ring where it turns: int64, (P, 2)."""
    lengths = np.array([*map(len, rings)])
    edges = np.concatenate(rings)
    ends, starts = heads[edges], tails[edges[next_in_ring(lengths)]]
    turns = ends[:, 1] != starts[:, 1]
    corners = np.stack((ends[turns], starts[turns]), axis=1).reshape(-1, 2)
    counts = 2 * np.add.reduceat(turns, np.cumsum(lengths) - lengths, dtype=np.int64)
    return np.split(corners, np.cumsum(counts)[:-1])


def _split_at_pinches(outlines: Sequence[Int64Array]) -> list[list[Ring]]:
    """Cut each ring that visits a corner twice into rings that visit each corner once."""
    pinched = _find_pinched(outlines)
    return [
        _split_at_pinch(corners) if number in pinched else [corners.astype(np.float64)]
        for number, corners in enumerate(outlines)
    ]


def _find_pinched(outlines: Sequence[Int64Array]) -> set[int]:
    """Find the rings that visit a corner twice."""
    numbers = np.repeat(np.arange(len(outlines)), [*map(len, outlines)])
    x, y = np.concatenate(outlines).T
    order = np.lexsort((x, y, numbers))
    visits = np.stack((numbers, y, x), axis=1)[order]
    twice = (visits[1:] == visits[:-1]).all(axis=1)
    return set(visits[1:][twice, 0].tolist())


def _split_at_pinch(corners: Int64Array) -> list[Ring]:
    rings: list[Ring] = []
    path: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
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


def _outermost(parts: Sequence[_Part]) -> list[_Part]:
    """Leave out the parts that lie inside others once holes are filled; the rings are exact."""
    if len(parts) < 2:
        return list(parts)
    rings = [part.outer for part in parts]
    points = np.concatenate(rings)
    x, y, corner = column_crossings(rings, int(points[:, 0].max()))
    following = points[next_in_ring(np.array([*map(len, rings)]))]
    order = np.lexsort((y, x))
    # Outer rings run clockwise: downwards, an edge that goes to the right leads inside.
    steps = np.sign(following[:, 0] - points[:, 0])[corner[order]]
    ring_of_corner = np.repeat(np.arange(len(rings)), [*map(len, rings)])
    enters_from_outside = (steps > 0) & (np.cumsum(steps) == 1)
    outer = np.unique(ring_of_corner[corner[order][enters_from_outside]])
    return [parts[number] for number in outer.tolist()]


# --- simplifying ------------------------------------------------------------------------------


class _Split(NamedTuple):
    """The corner farthest from the line that stands for a stretch of a ring."""

    minus_distance: float
    ring: int
    corner: int
    first: int
    last: int


def _simplify(
    parts: Sequence[_Part],
    *,
    tolerance_px: float,
    max_vertices: int | None,
    hole_cost: int,
    part_cost: int,
) -> list[_Part]:
    """Keep the corners that matter most, until all others lie within the tolerance.

    Each ring starts as the line between two far corners. Again and again the corner farthest from
    its line, over all rings, is put back. A ring appears with its third corner; the largest outer
    ring starts with four.

    Args:
        parts: exact parts, the largest first.
        tolerance_px: stop when no corner is farther than this.
        max_vertices: stop before there would be more corners than this.
        hole_cost: corners needed for a hole to appear, with those of its bridge.
        part_cost: the same for a part after the first.
    """
    rings = [_from_far_corner(ring) for part in parts for ring in (part.outer, *part.holes)]
    costs = [cost for part in parts for cost in (part_cost, *(hole_cost for _ in part.holes))]
    budget = np.inf if max_vertices is None else max_vertices
    kept: list[list[int]] = []
    queue: list[_Split] = []
    for number, ring in enumerate(rings):
        look_up()
        far = int(_squared_distances(ring, ring[0]).argmax())
        splits = [_farthest(rings, number, *stretch) for stretch in ((0, far), (far, len(ring)))]
        kept.append([0, far])
        if number == 0:
            kept[0] += [split.corner for split in splits]
            budget -= _MIN_VERTICES
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
            corners.append(split.corner)
            for half in _halves(rings, split):
                heapq.heappush(queue, half)
    simple = iter(ring[sorted(corners)] for ring, corners in zip(rings, kept, strict=True))
    return _drop_closed(
        _Part(next(simple), tuple(next(simple) for _ in part.holes)) for part in parts
    )


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


def _drop_closed(parts: Iterable[_Part]) -> list[_Part]:
    """Drop the rings that shrank to a line, and holes together with their outer ring."""
    return [
        _Part(part.outer, tuple(hole for hole in part.holes if len(hole) > 2))
        for part in parts
        if len(part.outer) > 2
    ]


# --- bridging ---------------------------------------------------------------------------------


def _bridge(rings: Sequence[Ring]) -> Ring:
    """Join rings to one by paths of zero width, walked there and back.

    Such a path encloses nothing, so the joined ring fills the same pixels. It leads from corner to
    corner: a path that ended inside an edge would split it at a rounded point. The first rings get
    short paths; looking for them takes time with the square of their number.
    """
    joined = rings[0]
    for ring in rings[1:_SHORT_BRIDGES]:
        look_up()
        near = _nearest_corner(joined, ring[0])
        ring = np.roll(ring, -_nearest_corner(ring, joined[near]), axis=0)
        near = _nearest_corner(joined, ring[0])
        joined = np.concatenate((joined[: near + 1], ring, ring[:1], joined[near:]))
        joined = joined[(joined != np.roll(joined, 1, axis=0)).any(axis=1)]
    others = sorted(rings[_SHORT_BRIDGES:], key=lambda ring: (*ring[0],))
    return _chain([joined, *others]) if others else joined


def _chain(rings: Sequence[Ring]) -> Ring:
    """Join rings by paths from the first corner of each one to that of the next."""
    there = [np.concatenate((ring, ring[:1])) for ring in rings]
    back = [ring[:1] for ring in rings[-2:0:-1]]
    return np.concatenate((*there, *back))


def _nearest_corner(ring: Ring, point: Ring) -> int:
    return int(_squared_distances(ring, point).argmin())


def _squared_distances(ring: Ring, point: Ring) -> Ring:
    squared: Ring = ((ring - point) ** 2).sum(axis=1)
    return squared

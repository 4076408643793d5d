"""Several rings to one that is still simple, for formats with one ring a part or an object.

A hole is joined to what is around it by a slit through the foreground, a part to another one by a
bar over the background. Both are narrow, run along columns and rows, and pass between the centres
of pixels, so that the joined ring fills the same pixels; they meet no other ring, since nothing is
between neighbours in a column.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.crossings import CUT_PX, Points, cut_shared_corners
from sam2_blocks.masks.filling import column_crossings, next_in_ring
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.masks.tracing import Part, Ring
from sam2_blocks.values import Int64Array

Point = tuple[float, float]

SLIT = 0.25, 0.25 + CUT_PX
"""Where a slit is in its column of pixels; rounded to fifths, as pycocotools does, it is closed."""

BAR = 0.75 - CUT_PX, 0.75
"""Where a bar is in its column, so that it never meets a slit."""

LANE = 0.8125 - CUT_PX, 0.8125
"""Where a bar that turns is in its column: no other one is to its right."""

ROW = SLIT
"""Where a bar is in its row."""


def bridge_holes(parts: Sequence[Part]) -> list[Part]:
    """Join the holes of each part to its outline; those that are nowhere inside are left out.

    Args:
        parts: of one mask or of several; they may overlap.
    """
    holed = [number for number, part in enumerate(parts) if part.holes]
    if not holed:
        return list(parts)
    rings = [(parts[number].outer, *parts[number].holes) for number in holed]
    numbers = np.repeat(np.arange(len(holed)), [*map(len, rings)])
    plan = _Plan([ring for of_part in rings for ring in of_part], numbers, together=False)
    plan.join_neighbours(holes=True, parts=False)
    made = list(parts)
    for number, ring in zip(holed, plan.outer_rings(), strict=True):
        made[number] = Part(ring, ())
    return made


def bridge_parts(parts: Sequence[Part], *, holes: bool) -> Part:
    """Join parts to one.

    Args:
        parts: the largest first; their rings do not cross.
        holes: join these, too.
    """
    rings = [ring for part in parts for ring in (part.outer, *part.holes)]
    numbers = np.repeat(np.arange(len(parts)), [1 + len(part.holes) for part in parts])
    plan = _Plan(rings, numbers, together=True)
    plan.join_neighbours(holes=holes, parts=True)
    plan.join_side_by_side()
    outer, *others = plan.rings()
    return Part(outer, () if holes else tuple(others))


@dataclass
class _Gap:
    """Where a ring is left for another one, and where it is entered again.

    Attributes:
        at: how far along its edge.
        leave: the point where it is left.
        wall: corners on the way from there to the other ring.
        enter: the point where it is entered.
        other: edge and gap at which that way ends.
    """

    at: float
    leave: Point
    wall: list[Point]
    enter: Point
    other: tuple[int, _Gap] | None = field(default=None, repr=False)


class _Plan:
    """Rings, and the ways between them.

    Args:
        rings: float64 (P, 2) each, which do not cross; the outer ring of the largest part first.
        parts: int64, (R,), number of the part of each, in rising order, its outer ring first.
        together: whether the rings of different parts do not cross, either.
    """

    def __init__(self, rings: Sequence[Ring], parts: Int64Array, *, together: bool) -> None:
        lengths = np.array([*map(len, rings)], np.int64)
        groups = np.zeros_like(parts) if together else parts
        self._points, self._lengths, _ = cut_shared_corners(np.concatenate(rings), lengths, groups)
        self._after = next_in_ring(self._lengths)
        self._ring = np.repeat(np.arange(len(rings)), self._lengths)
        self._part, self._group = parts[self._ring], groups[self._ring]
        self._parts, self._rings = _Groups(int(parts[-1]) + 1), _Groups(len(rings))
        self._gaps: dict[int, list[_Gap]] = defaultdict(list)

    def join_neighbours(self, *, holes: bool, parts: bool) -> None:
        """Join rings that have nothing between them in a column, along the shortest ways.

        Args:
            holes: through the foreground, rings of one part.
            parts: over the background, rings of different parts.
        """
        x, y, edge = self._crossings(upright=True)
        upper, lower = edge[:-1], edge[1:]
        is_slit = np.arange(len(upper)) % 2 == 0
        wanted = (x[:-1] == x[1:]) & (self._ring[upper] != self._ring[lower])
        wanted &= self._group[upper] == self._group[lower]
        wanted &= np.where(is_slit, holes, parts)
        wanted &= is_slit | (self._part[upper] != self._part[lower])
        candidates = np.flatnonzero(wanted)
        candidates = candidates[np.argsort(np.diff(y)[candidates], kind="stable")]
        for turn, number in enumerate(candidates.tolist()):
            if turn % 4096 == 0:
                look_up()
            if self._joins(int(upper[number]), int(lower[number]), slit=bool(is_slit[number])):
                self._cross_column(
                    int(x[number]), int(upper[number]), int(lower[number]), bool(is_slit[number])
                )

    def join_side_by_side(self) -> None:
        """Join parts that share no column, each with the next one to its right."""
        spans: dict[int, list[float]] = {}
        for part in np.unique(self._part).tolist():
            xs = self._points[self._part == part, 0]
            group = spans.setdefault(self._parts.find(part), [np.inf, -np.inf])
            spans[self._parts.find(part)] = [min(group[0], xs.min()), max(group[1], xs.max())]
        in_order = sorted(spans, key=lambda group: spans[group])
        groups = np.array([self._parts.find(part) for part in range(int(self._part.max()) + 1)])
        rows, columns = self._crossings(upright=False), self._crossings(upright=True)
        for left, right in pairwise(in_order):
            look_up()
            of_left, of_right = groups == left, groups == right
            ends = _last_of_row(rows.of(of_left[self._part[rows.edge]]), spans[left][1] - 0.25)
            starts = _first_of_row(rows.of(of_right[self._part[rows.edge]]), spans[right][0] + 0.25)
            shared, at_end, at_start = np.intersect1d(ends.line, starts.line, return_indices=True)
            if len(shared):
                near = int(np.argmin(starts.at[at_start] - ends.at[at_end]))
                row = int(shared[near])
                self._cross_row(row, int(ends.edge[at_end[near]]), int(starts.edge[at_start[near]]))
            else:
                last = columns.of(
                    of_left[self._part[columns.edge]]
                    & (columns.line == np.ceil(spans[left][1]) - 1)
                )
                self._turn(last, starts)

    def rings(self) -> list[Ring]:
        """All rings that there are then, that of the largest part first."""
        leaders = map(self._rings.find, range(len(self._lengths)))
        return self._walk_all(sorted(set(leaders)))

    def outer_rings(self) -> list[Ring]:
        """The outer ring of each part, with what is joined to it."""
        firsts = self._part[np.cumsum(self._lengths) - self._lengths]
        return self._walk_all(np.flatnonzero(np.diff(firsts, prepend=-1)).tolist())

    def _walk_all(self, numbers: Sequence[int]) -> list[Ring]:
        for gaps in self._gaps.values():
            gaps.sort(key=lambda gap: gap.at)
        corners, after = [*zip(*self._points.T.tolist(), strict=True)], self._after.tolist()
        firsts = np.cumsum(self._lengths) - self._lengths
        return [self._walk(int(firsts[number]), corners, after) for number in numbers]

    def _crossings(self, *, upright: bool) -> _Crossings:
        """Where edges cross the middles of columns, or of rows, in order."""
        points = self._points if upright else self._points[:, ::-1]
        last = int(np.ceil(points[:, 0].max()))
        line, at, edge = column_crossings(points, self._lengths, last)
        order = np.lexsort((at, line, self._group[edge]))
        return _Crossings(line[order], at[order], edge[order])

    def _joins(self, one: int, other: int, *, slit: bool) -> bool:
        """Whether a way between two edges joins what was apart; it does then."""
        if not slit and not self._parts.join(int(self._part[one]), int(self._part[other])):
            return False
        return self._rings.join(int(self._ring[one]), int(self._ring[other]))

    def _cross_column(self, column: int, upper: int, lower: int, slit: bool) -> None:
        low, high = (column + side for side in (SLIT if slit else BAR))
        # An upper edge of the foreground is walked to the right, a lower one to the left.
        sides = (low, high) if slit else (high, low)
        self._connect(
            (upper, self._at_x(upper, sides[0]), self._at_x(upper, sides[1]), []),
            (lower, self._at_x(lower, sides[1]), self._at_x(lower, sides[0]), []),
        )

    def _cross_row(self, row: int, left: int, right: int) -> None:
        """A straight bar, from an edge that is walked downwards to one that is walked upwards."""
        low, high = (row + side for side in ROW)
        self._connect(
            (left, self._at_y(left, low), self._at_y(left, high), []),
            (right, self._at_y(right, high), self._at_y(right, low), []),
        )

    def _turn(self, column: _Crossings, starts: _Crossings) -> None:
        """A bar along a column, and from there to the right."""
        above = np.searchsorted(column.at, starts.line + 0.5)  # edges above each row
        gap = np.abs(column.at[np.maximum(above - 1, 0)] - starts.line - 0.5)
        near = int(np.argmin(gap))
        low, high = (int(starts.line[near]) + side for side in ROW)
        downwards = bool(above[near])
        edge, right = int(column.edge[max(above[near] - 1, 0)]), int(starts.edge[near])
        sides = [int(column.line[0]) + side for side in LANE]
        leave, enter = reversed(sides) if downwards else sides
        self._connect(
            (edge, self._at_x(edge, leave), self._at_x(edge, enter), [(leave, low)]),
            (right, self._at_y(right, high), self._at_y(right, low), [(enter, high)]),
        )

    def _at_x(self, edge: int, x: float) -> Point:
        (x0, y0), (x1, y1) = self._points[[edge, self._after[edge]]].tolist()
        return x, y0 + (x - x0) / (x1 - x0) * (y1 - y0)

    def _at_y(self, edge: int, y: float) -> Point:
        (x0, y0), (x1, y1) = self._points[[edge, self._after[edge]]].tolist()
        return x0 + (y - y0) / (y1 - y0) * (x1 - x0), y

    def _connect(self, *ends: tuple[int, Point, Point, list[Point]]) -> None:
        """Note a way: for both ends the edge, where it is left and entered, and the wall."""
        made: list[tuple[int, _Gap]] = []
        for edge, leave, enter, wall in ends:
            along = np.abs(np.subtract(leave, self._points[edge])).sum()
            made.append((edge, _Gap(float(along), leave, wall, enter)))
            self._gaps[edge].append(made[-1][1])
        made[0][1].other, made[1][1].other = made[1], made[0]
        self._rings.join(int(self._ring[made[0][0]]), int(self._ring[made[1][0]]))

    def _walk(self, first: int, corners: list[Point], after: list[int]) -> Ring:
        """Follow a ring, and what is joined to it, once around."""
        points, corner, passed = [corners[first]], first, 0
        while True:
            gaps = self._gaps.get(corner, ())
            if passed < len(gaps):
                gap = gaps[passed]
                assert gap.other is not None
                corner, other = gap.other
                points += [gap.leave, *gap.wall, other.enter]
                passed = next(i for i, one in enumerate(self._gaps[corner]) if one is other) + 1
                continue
            corner, passed = after[corner], 0
            if corner == first:
                return np.array(points)
            points.append(corners[corner])


class _Crossings(NamedTuple):
    """Where edges cross the middles of lines of pixels.

    Attributes:
        line: the column or row, in rising order for each group of rings.
        at: how far down or right, in rising order in each line.
        edge: which edge.
    """

    line: Int64Array
    at: Points
    edge: Int64Array

    def of(self, chosen: NDArray[np.bool_] | Int64Array) -> _Crossings:
        """Some of them."""
        return _Crossings(self.line[chosen], self.at[chosen], self.edge[chosen])


def _first_of_row(found: _Crossings, most: float) -> _Crossings:
    """Of each row the leftmost, where it is not farther right than that."""
    found = found.of(np.unique(found.line, return_index=True)[1])
    return found.of(found.at <= max(most, found.at.min()))


def _last_of_row(found: _Crossings, least: float) -> _Crossings:
    """Of each row the rightmost, where it is not farther left than that."""
    found = found.of(len(found.line) - 1 - np.unique(found.line[::-1], return_index=True)[1])
    return found.of(found.at >= min(least, found.at.max()))


class _Groups:
    """What is joined with what, of so many."""

    def __init__(self, count: int) -> None:
        self._leader = list(range(count))

    def find(self, one: int) -> int:
        leader = self._leader
        while leader[one] != one:
            leader[one] = one = leader[leader[one]]
        return one

    def join(self, one: int, other: int) -> bool:
        """Join two; whether they were apart."""
        one, other = self.find(one), self.find(other)
        self._leader[max(one, other)] = min(one, other)
        return one != other

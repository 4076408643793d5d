"""Outlines of masks: run lengths to polygons; `filling` leads back.

Outlines run along pixel edges: pixel ``(x, y)`` is the square from ``(x, y)`` to
``(x + 1, y + 1)``, and it belongs to a polygon when its centre does (even-odd rule). So an outline
that is not simplified gives its mask back exactly, even for one pixel, a hole, or parts that touch
at a corner. Foreground is connected along edges, not over corners. Every ring is simple, and rings
of one part do not cross, also when they are simplified or bridged.

An outline is a lossy form as soon as it is simplified or holes are filled; `Polygons.iou` says how
lossy. Run lengths are the exact form of a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from sam2_blocks.masks.bridging import bridge_holes, bridge_parts
from sam2_blocks.masks.crossings import is_tangled
from sam2_blocks.masks.filling import fill_masks
from sam2_blocks.masks.rle import rle_iou, rle_to_spans
from sam2_blocks.masks.simplifying import MIN_VERTICES, simplify, simplify_masks
from sam2_blocks.masks.tracing import Part, Ring, outermost, trace_masks
from sam2_blocks.values import Hw, Rle

HolePolicy = Literal["keep", "bridge", "fill"]
MultipolygonPolicy = Literal["all", "bridge", "largest"]

_RUNS = 2**14  # traced together: as many make the overhead of a batch nothing


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
            outer ring by a slit of 1/32 pixel between the centres of pixels, for formats with one
            ring a part, such as COCO; no pixel is lost, and each ring is a simple
            polygon. ``fill`` drops holes, and what lies inside them.
        multipolygon_policy: ``all`` returns each connected part. ``bridge`` joins the parts to one
            ring in the same way, for formats with one ring an object, such as YOLO. ``largest``
            keeps the part with the largest outer ring.
        tolerance_px: the outline may move by at most this many pixels; 0 is exact. Parts and
            holes that such a move can close disappear, save the largest part.
        max_vertices: most corners of all rings together; the most significant ones are kept.

    Raises:
        ValueError: if a policy is unknown, ``tolerance_px`` is negative or not finite, or
            ``max_vertices`` is below 4.

    Example:
        >>> from sam2_blocks.masks import mask_to_rle
        >>> traced = rle_to_polygons(mask_to_rle(np.ones((2, 3), bool)))
        >>> traced.outer[0].tolist()
        [[3.0, 0.0], [3.0, 2.0], [0.0, 2.0], [0.0, 0.0]]

    Source: simplified after Douglas and Peucker, 1973, the farthest corner of all rings first.
    """
    [made] = rles_to_polygons(
        [rle],
        hole_policy=hole_policy,
        multipolygon_policy=multipolygon_policy,
        tolerance_px=tolerance_px,
        max_vertices=max_vertices,
    )
    return made


def rles_to_polygons(
    rles: Iterable[Rle],
    *,
    hole_policy: HolePolicy = "keep",
    multipolygon_policy: MultipolygonPolicy = "all",
    tolerance_px: float = 0.0,
    max_vertices: int | None = None,
) -> list[Polygons]:
    """Trace the outline of each mask, as `rle_to_polygons` does; small ones in less time.

    Args:
        rles: the masks, of any sizes.
        hole_policy: see `rle_to_polygons`, like the next three.
        multipolygon_policy: what becomes of several parts.
        tolerance_px: how far outlines may move.
        max_vertices: of each mask.

    Raises:
        ValueError: as `rle_to_polygons`.
    """
    options = _Options(hole_policy, multipolygon_policy, tolerance_px, max_vertices)
    _check_options(options)
    return [made for batch in _batches(rles) for made in _outlines(batch, options)]


class _Options(NamedTuple):
    """See `rle_to_polygons`."""

    hole_policy: HolePolicy
    multipolygon_policy: MultipolygonPolicy
    tolerance_px: float
    max_vertices: int | None


def _batches(rles: Iterable[Rle]) -> Iterator[list[Rle]]:
    """Masks that are traced together."""
    batch: list[Rle] = []
    runs = 0
    for rle in rles:
        batch.append(rle)
        runs += len(rle.counts)
        if runs >= _RUNS:
            yield batch
            batch, runs = [], 0
    if batch:
        yield batch


def _outlines(rles: Sequence[Rle], options: _Options) -> list[Polygons]:
    masks = trace_masks([rle_to_spans(rle) for rle in rles])
    if options.multipolygon_policy == "largest":
        masks = [parts[:1] for parts in masks]
    if options.hole_policy == "fill":
        masks = [outermost([Part(part.outer, ()) for part in parts]) for parts in masks]
    if options.max_vertices is not None or options.multipolygon_policy == "bridge":
        masks = [_reduce(parts, options) if parts else [] for parts in masks]
    else:
        if options.tolerance_px > 0:
            masks = simplify_masks(masks, tolerance_px=options.tolerance_px)
        if options.hole_policy == "bridge":
            bridged = iter(bridge_holes([part for parts in masks for part in parts]))
            masks = [[*islice(bridged, len(parts))] for parts in masks]
    return _measured(masks, rles)


def _reduce(parts: Sequence[Part], options: _Options) -> list[Part]:
    """Simplify and bridge; what keeps rings apart may cost corners, which others then give."""
    hole_policy, multipolygon_policy, tolerance_px, max_vertices = options
    budget = max_vertices
    while True:
        made = list(parts)
        if tolerance_px > 0 or budget is not None:
            made = simplify(
                parts,
                tolerance_px=tolerance_px,
                max_vertices=budget,
                hole_cost=3 + (4 if hole_policy == "bridge" else 0),
                part_cost=3 + (6 if multipolygon_policy == "bridge" else 0),
                together=multipolygon_policy == "bridge",
            )
        if multipolygon_policy == "bridge":
            made = [bridge_parts(made, holes=hole_policy == "bridge")]
            if tolerance_px > 0 and is_tangled(made[0].outer):  # bars met on a slanted edge
                tolerance_px = tolerance_px / 2 if tolerance_px > 0.2 else 0.0
                continue
        elif hole_policy == "bridge":
            made = bridge_holes(made)
        count = sum(len(ring) for part in made for ring in (part.outer, *part.holes))
        if budget is None or max_vertices is None or count <= max_vertices:
            return made
        if budget == MIN_VERTICES:
            return [Part(_triangle(parts[0].outer), ())]
        budget = max(MIN_VERTICES, budget - (count - max_vertices))


def _triangle(ring: Ring) -> Ring:
    """Three corners of a ring that are far apart."""
    first = ring[0]
    far = ring[np.argmax(np.hypot(*(ring - first).T))]
    away = (ring - first) @ np.array([first[1] - far[1], far[0] - first[0]])
    third = int(np.argmax(np.abs(away)))
    corners = (first, far, ring[third]) if away[third] > 0 else (first, ring[third], far)
    return np.array(corners)


def _measured(masks: Sequence[Sequence[Part]], rles: Sequence[Rle]) -> list[Polygons]:
    rings = [[[part.outer, *part.holes] for part in parts] for parts in masks]
    filled = fill_masks(rings, [rle.size for rle in rles])
    return [
        Polygons(
            size=rle.size,
            outer=tuple(part.outer for part in parts),
            holes=tuple(part.holes for part in parts),
            iou=rle_iou(rle, read),
        )
        for parts, rle, read in zip(masks, rles, filled, strict=True)
    ]


def _check_options(options: _Options) -> None:
    hole_policy, multipolygon_policy, tolerance_px, max_vertices = options
    for name, value, choices in (
        ("hole_policy", hole_policy, ("keep", "bridge", "fill")),
        ("multipolygon_policy", multipolygon_policy, ("all", "bridge", "largest")),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if not 0 <= tolerance_px < np.inf:
        raise ValueError(f"tolerance_px must be 0 or a positive number, got {tolerance_px}")
    if max_vertices is not None and max_vertices < MIN_VERTICES:
        raise ValueError(f"max_vertices must be at least {MIN_VERTICES}, got {max_vertices}")

"""``masks/polygons@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.values import Rle


class MaskPolygonsItem(Protocol):
    """One picture; see the manifest."""

    predictions: sv.Detections
    hole_policy: Literal["keep", "bridge", "fill"]
    multipolygon_policy: Literal["all", "bridge", "largest"]
    tolerance: float
    max_vertices: int | None


class MaskPolygons:
    """Trace the outline of every mask and say how much of the mask the outline keeps."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[MaskPolygonsItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"polygons": _trace_all(item)} for item in items]


def _trace_all(item: MaskPolygonsItem) -> list[dict[str, Any]]:
    return [_trace(item, index, rle) for index, rle in enumerate(to_rles(item.predictions))]


def _trace(item: MaskPolygonsItem, index: int, rle: Rle) -> dict[str, Any]:
    data = item.predictions.data
    traced = rle_to_polygons(
        rle,
        hole_policy=item.hole_policy,
        multipolygon_policy=item.multipolygon_policy,
        tolerance_px=item.tolerance,
        max_vertices=item.max_vertices,
    )
    return {
        "class_name": str(data["class_name"][index]) if "class_name" in data else "object",
        "outer": [ring.tolist() for ring in traced.outer],
        "holes": [[ring.tolist() for ring in rings] for rings in traced.holes],
        "iou": float(traced.iou),
    }

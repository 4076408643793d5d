"""``masks/polygons@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.polygons import rles_to_polygons


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
    data = item.predictions.data
    traced = rles_to_polygons(
        to_rles(item.predictions),
        hole_policy=item.hole_policy,
        multipolygon_policy=item.multipolygon_policy,
        tolerance_px=item.tolerance,
        max_vertices=item.max_vertices,
    )
    return [
        {
            "class_name": str(data["class_name"][index]) if "class_name" in data else "object",
            "outer": [ring.tolist() for ring in polygons.outer],
            "holes": [[ring.tolist() for ring in rings] for rings in polygons.holes],
            "iou": float(polygons.iou),
        }
        for index, polygons in enumerate(traced)
    ]

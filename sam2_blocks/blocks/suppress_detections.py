"""``detections/nms@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.merging import suppress_detections


class SuppressDetectionsItem(Protocol):
    """One picture; see the manifest."""

    detections: sv.Detections
    iou: float
    class_agnostic: bool


class SuppressDetections:
    """Keep of overlapping detections the most certain."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[SuppressDetectionsItem]) -> Sequence[Mapping[str, sv.Detections]]:
        """See the manifest."""
        return [
            {
                "detections": suppress_detections(
                    item.detections, iou=item.iou, class_agnostic=item.class_agnostic
                )
            }
            for item in items
        ]

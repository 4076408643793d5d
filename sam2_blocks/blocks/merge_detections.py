"""``detections/merge@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.merging import (
    average_detections,
    concatenate_detections,
    suppress_detections,
)


class MergeDetectionsItem(Protocol):
    """One picture; see the manifest."""

    first: sv.Detections
    second: sv.Detections
    third: sv.Detections | None
    fourth: sv.Detections | None
    method: Literal["nms", "weighted", "all"]
    iou: float
    class_agnostic: bool


class MergeDetections:
    """Make one of what several detectors found in a picture."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[MergeDetectionsItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_merge_or_error(item) for item in items]


def _merge_or_error(item: MergeDetectionsItem) -> Mapping[str, Any] | Exception:
    try:
        return {"detections": _merge(item)}
    except ValueError as error:
        return error


def _merge(item: MergeDetectionsItem) -> sv.Detections:
    parts = [p for p in (item.first, item.second, item.third, item.fourth) if p is not None]
    together = concatenate_detections(parts)
    if item.method == "weighted":
        return average_detections(together, iou=item.iou, count=len(parts))
    if item.method == "nms":
        return suppress_detections(together, iou=item.iou, class_agnostic=item.class_agnostic)
    return together

"""``detections/filter@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_area


class FilterDetectionsItem(Protocol):
    """One picture; see the manifest."""

    detections: sv.Detections
    classes: list[str] | None
    min_confidence: float
    min_area: float
    max_area: float | None
    max_count: int | None


class FilterDetections:
    """Keep the detections that pass every rule, in their order."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[FilterDetectionsItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"detections": _filter(item)} for item in items]


def _filter(item: FilterDetectionsItem) -> sv.Detections:
    found = item.detections
    keep = np.ones(len(found), dtype=bool)
    if item.classes is not None:
        keep &= np.isin(_class_names(found), item.classes)
    if item.min_confidence > 0:
        keep &= _confidence(found) >= item.min_confidence
    area = _area(found)
    keep &= area >= item.min_area
    if item.max_area is not None:
        keep &= area <= item.max_area
    rows = np.flatnonzero(keep)
    if item.max_count is not None and len(rows) > item.max_count:
        best = np.argsort(-_confidence(found)[rows], kind="stable")[: item.max_count]
        rows = np.sort(rows[best])
    return cast(sv.Detections, found[rows])


def _class_names(found: sv.Detections) -> NDArray[Any]:
    if "class_name" not in found.data and len(found):
        raise ValueError("cannot filter by class: the detections have no data['class_name']")
    return np.asarray(found.data.get("class_name", []), dtype=str)


def _confidence(found: sv.Detections) -> NDArray[np.floating]:
    """Confidence of each detection; boxes drawn by hand have none and count as certain."""
    return np.ones(len(found)) if found.confidence is None else found.confidence


def _area(found: sv.Detections) -> NDArray[np.floating]:
    """Mask area where there are masks, else box area, in pixels."""
    if found.mask is None:
        return np.asarray(found.box_area, dtype=float)
    return np.array([rle_area(rle) for rle in to_rles(found)], dtype=float)

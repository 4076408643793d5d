"""Masks and boxes → regions of Label Studio: brush, polygon or rectangle, in percent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from sam2_blocks.hosts.bridge import NO_CLASS
from sam2_blocks.hosts.labelstudio.brush import rle_to_brush
from sam2_blocks.hosts.labelstudio.config import Target
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_to_box_xyxy
from sam2_blocks.service.errors import RequestError
from sam2_blocks.values import Hw, Rle

TOLERANCE_PX = 1.0
"""How far the corners of a polygon may be from the mask: few corners are easy to move."""

Value = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """One object.

    Attributes:
        labels: of the project.
        image_hw: size of its picture.
        mask: its mask, if there is one.
        box_xyxy: its box in pixels, up to the far edge of the last pixel.
        score: how sure the model is, from 0 to 1.
    """

    labels: tuple[str, ...]
    image_hw: Hw
    mask: Rle | None
    box_xyxy: tuple[float, float, float, float]
    score: float | None


def mask_to_found(labels: tuple[str, ...], rle: Rle, score: float | None) -> Found:
    """Describe an object by its mask, which has at least one pixel."""
    x0, y0, x1, y1 = (float(edge) for edge in rle_to_box_xyxy(rle))
    return Found(labels, rle.size, rle, (x0, y0, x1 + 1, y1 + 1), score)


def row_to_found(row: Mapping[str, Any], target: Target, image_hw: Hw) -> Found | None:
    """Read a row of a pipeline's detections.

    Args:
        row: as `sam2_blocks.formats.rows` writes it.
        target: where it goes.
        image_hw: size of the picture.

    Returns:
        The object, without a label if it has no class; None if its mask is empty, or its class is
        none of the project's labels.
    """
    class_name = str(row.get("class_name") or "")
    label = target.label_of(class_name)
    if label is None and class_name not in NO_CLASS:
        return None
    labels, score = (label,) if label else (), row.get("confidence")
    if "segmentation" not in row:
        x0, y0, x1, y1 = row["box_xyxy"]
        return Found(labels, image_hw, None, (x0, y0, x1, y1), score)
    rle = coco_to_rle(row["segmentation"])
    return mask_to_found(labels, rle, score) if rle_area(rle) else None


def to_prediction(found: Sequence[Found], target: Target, model_version: str) -> dict[str, Any]:
    """Make the prediction of one task.

    Args:
        found: the objects.
        target: the tags they become.
        model_version: what made them.

    Returns:
        What Label Studio stores or shows: ``result``, ``score`` and ``model_version``.

    Raises:
        RequestError: if a brush or polygon is wanted of an object that is only a box.
    """
    regions = [region for one in found for region in to_regions(one, target)]
    scores = [one.score for one in found if one.score is not None]
    score = float(np.mean(scores)) if scores else 0.0
    return {"result": regions, "score": score, "model_version": model_version}


def to_regions(found: Found, target: Target) -> list[dict[str, Any]]:
    """Make the regions of one object: a polygon for each part of its mask, else one."""
    control = target.control
    height, width = found.image_hw
    regions = []
    for value in VALUES[control.form](found):
        common: dict[str, Any] = {
            "id": uuid4().hex[:10],
            "to_name": target.picture,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": found.score,
        }
        labels = list(found.labels)
        if control.has_labels:
            value = {**value, control.type: labels}
        regions.append({**common, "from_name": control.name, "type": control.type, "value": value})
        beside = target.labelled_by
        if beside is not None and beside is not control and labels:
            said = {**value, beside.type: labels}
            regions.append({**common, "from_name": beside.name, "type": beside.type, "value": said})
    return regions


def _to_brushes(found: Found) -> Iterable[Value]:
    yield {"format": "rle", "rle": rle_to_brush(_mask_of(found))}


def _to_polygons(found: Found) -> Iterable[Value]:
    """Outlines without holes, which these polygons cannot have."""
    height, width = found.image_hw
    traced = rle_to_polygons(_mask_of(found), hole_policy="fill", tolerance_px=TOLERANCE_PX)
    for ring in traced.outer:
        points = ring * np.array([100 / width, 100 / height])
        yield {"points": points.tolist(), "closed": True}


def _to_rectangles(found: Found) -> Iterable[Value]:
    height, width = found.image_hw
    x0, x1 = (min(max(x, 0), width) * 100 / width for x in found.box_xyxy[::2])
    y0, y1 = (min(max(y, 0), height) * 100 / height for y in found.box_xyxy[1::2])
    yield {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}


VALUES: dict[str, Callable[[Found], Iterable[Value]]] = {
    "brush": _to_brushes,
    "polygon": _to_polygons,
    "rectangle": _to_rectangles,
}


def _mask_of(found: Found) -> Rle:
    if found.mask is None:
        raise RequestError(
            "the pipeline found boxes without masks. Let it end in sam2/segment, or label with "
            "<RectangleLabels>."
        )
    return found.mask

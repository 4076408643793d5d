"""Boxes out of the JSON that the tools of this field write for one picture.

Labelme's files, answers of Roboflow, results of Ultralytics, and our own rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

from sam2_blocks.errors import FileWarning
from sam2_blocks.files.reading import read_json
from sam2_blocks.formats.coco_boxes import check_size
from sam2_blocks.formats.rows import (
    Box,
    boxes_to_detections,
    finite,
    rows_to_detections,
    settle_wrong,
    whole_id,
)
from sam2_blocks.values import Hw

Xyxy = tuple[float, float, float, float]
Row = Mapping[str, Any]

FORMS = (
    "our own rows (box_xyxy), COCO annotations, COCO results, YOLO text, Labelme, Roboflow and "
    "Ultralytics"
)
WRONG = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)


def sort_of_json(data: Any) -> str:
    """Tell what a JSON file holds: ``json`` for our own rows, or for nothing we know."""
    if isinstance(data, Mapping):
        for key, sort in (("annotations", "coco"), ("shapes", "labelme"), ("images", "hub")):
            if isinstance(data.get(key), list):
                return "ultralytics" if sort == "hub" else sort
        return "roboflow" if "predictions" in data else "json"
    first = data[0] if isinstance(data, list) and data else None
    if not isinstance(first, Mapping):
        return "json"
    if "image_id" in first:
        return "coco_results"
    if isinstance(first.get("box"), Mapping):
        return "ultralytics"
    roboflow = "predictions" in first or {"x", "y", "width", "height"} <= first.keys()
    return "roboflow" if roboflow else "json"


def load_json(
    path: Path,
    image_hw: Hw | None = None,
    *,
    form: str = "auto",
    numbers: dict[str, int] | None = None,
    skip_wrong: bool = False,
    data: Any = None,
) -> sv.Detections:
    """Read the boxes of one picture.

    Args:
        path: the file.
        image_hw: size of the picture, for files that say one and for shares of it.
        form: ``json``, ``labelme``, ``roboflow`` or ``ultralytics``; ``auto`` looks at it.
        numbers: class ids by name, see `boxes_to_detections`.
        skip_wrong: leave out entries that are wrong, with a warning.
        data: what is in the file, if it was read.

    Raises:
        ValueError: if it cannot be read; the message gives the file.
    """
    data = read_json(path) if data is None else data
    form = sort_of_json(data) if form == "auto" else form
    try:
        if form not in _READERS:
            return _load_rows(data, numbers)
        found, box_of = _READERS[form](data, path, image_hw)
        boxes, wrong = _boxes(found, box_of)
        settle_wrong(wrong, "entries that are wrong", skip=skip_wrong, source=str(path))
        return boxes_to_detections(boxes, numbers)
    except WRONG as error:
        raise ValueError(f"{path}: {_said(error)}") from error


def _load_rows(data: Any, numbers: dict[str, int] | None) -> sv.Detections:
    rows = data.get("detections") if isinstance(data, Mapping) else data
    if not isinstance(rows, list):
        raise ValueError(f"holds no boxes in a form that is read: {FORMS}")
    try:
        return rows_to_detections(rows, numbers)
    except ValueError as error:
        known = rows and isinstance(rows[0], Mapping) and "box_xyxy" not in rows[0]
        hint = f" Forms that are read: {FORMS}." if known else ""
        raise ValueError(f"{error}.{hint}" if hint else str(error)) from error


def _boxes(rows: Sequence[Any], box_of: Callable[[Any], Box]) -> tuple[list[Box], list[str]]:
    """Read the rows that can be read, and say what is wrong with each of the others."""
    boxes, wrong = [], []
    for index, row in enumerate(rows):
        try:
            boxes.append(box_of(row))
        except WRONG as error:
            wrong.append(f"entry {index} is wrong: {_said(error)}")
    return boxes, wrong


def _said(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _optional(row: Row, name: str, read: Callable[[Any], Any]) -> Any:
    return None if row.get(name) is None else read(row[name])


def _check(path: Path, height: Any, width: Any, image_hw: Hw | None) -> None:
    if image_hw is not None and height and width:
        check_size("says the picture", (int(finite(height)), int(finite(width))), image_hw)


# --- Roboflow ---------------------------------------------------------------------------------


def _roboflow(data: Any, path: Path, image_hw: Hw | None) -> tuple[Any, Callable[[Any], Box]]:
    while not isinstance(data, list) or (len(data) == 1 and "predictions" in data[0]):
        data = data[0] if isinstance(data, list) else data
        size = data.get("image") or {}
        _check(path, size.get("height"), size.get("width"), image_hw)
        data = data["predictions"]
    return data, _roboflow_box


def _roboflow_box(row: Row) -> Box:
    x, y, width, height = (finite(row[name]) for name in ("x", "y", "width", "height"))
    return Box(
        (x - width / 2, y - height / 2, x + width / 2, y + height / 2),
        str(row.get("class", "object")),
        _optional(row, "class_id", whole_id),
        _optional(row, "confidence", finite),
        _optional(row, "tracker_id", whole_id),
    )


# --- Ultralytics ------------------------------------------------------------------------------


def _ultralytics(data: Any, path: Path, image_hw: Hw | None) -> tuple[Any, Callable[[Any], Box]]:
    if isinstance(data, Mapping):
        [picture] = data["images"]
        height, width = picture.get("shape") or (0, 0)
        _check(path, height, width, image_hw)
        data = picture["results"]
    scale = _scale_of_shares(data, path, image_hw)
    return data, lambda row: _ultralytics_box(row, scale)


def _scale_of_shares(rows: Sequence[Row], path: Path, image_hw: Hw | None) -> tuple[float, float]:
    """What x and y are multiplied by: the size, where all are shares of it."""
    boxes = [row["box"].values() for row in rows if isinstance(row.get("box"), Mapping)]
    numbers = [value for box in boxes for value in box if isinstance(value, int | float)]
    if not numbers or image_hw is None or max(numbers) > 1 or min(image_hw) <= 2:
        return 1.0, 1.0
    text = f"{path}: all boxes are within 0 to 1 and taken for shares of the picture"
    warnings.warn(text, FileWarning, stacklevel=4)
    return float(image_hw[1]), float(image_hw[0])


def _ultralytics_box(row: Row, scale: tuple[float, float]) -> Box:
    corners = row["box"]
    xs = [finite(value) * scale[0] for name, value in corners.items() if name.startswith("x")]
    ys = [finite(value) * scale[1] for name, value in corners.items() if name.startswith("y")]
    return Box(
        (min(xs), min(ys), max(xs), max(ys)),
        str(row.get("name", "object")),
        _optional(row, "class", whole_id),
        _optional(row, "confidence", finite),
        _optional(row, "track_id", whole_id),
    )


# --- Labelme ----------------------------------------------------------------------------------


def _labelme(data: Any, path: Path, image_hw: Hw | None) -> tuple[Any, Callable[[Any], Box]]:
    _check(path, data.get("imageHeight"), data.get("imageWidth"), image_hw)
    grouped: dict[Any, list[Row]] = {}
    left_out = 0
    for index, shape in enumerate(data["shapes"]):
        if shape.get("shape_type", "polygon") in ("point", "points", "line", "linestrip"):
            left_out += 1
            continue
        group = shape.get("group_id")
        key = index if group is None else (shape.get("label"), group)
        grouped.setdefault(key, []).append(shape)
    if left_out:
        text = (
            f"{path}: left out {left_out} points and lines, which have no box; prompts/load@v1 "
            "reads them as clicks"
        )
        warnings.warn(text, FileWarning, stacklevel=4)
    return list(grouped.values()), _labelme_box


def _labelme_box(shapes: Sequence[Row]) -> Box:
    """The box of all shapes of one group: the parts of an object."""
    corners = np.array([_shape_corners(shape) for shape in shapes])
    (x0, y0), (x1, y1) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    return Box((float(x0), float(y0), float(x1), float(y1)), str(shapes[0]["label"]))


def _shape_corners(shape: Row) -> Xyxy:
    points = [(finite(x), finite(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    if kind == "circle":
        (x, y), edge = points
        radius = math.hypot(edge[0] - x, edge[1] - y)
        return x - radius, y - radius, x + radius, y + radius
    xs, ys = zip(*points, strict=True)
    last = 1 if kind == "mask" else 0  # the last pixel is inside
    return min(xs), min(ys), max(xs) + last, max(ys) + last


_READERS: Mapping[str, Callable[[Any, Path, Hw | None], tuple[Any, Callable[[Any], Box]]]] = {
    "labelme": _labelme,
    "roboflow": _roboflow,
    "ultralytics": _ultralytics,
}

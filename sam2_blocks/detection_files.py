"""Detections ↔ files: our JSON rows, COCO annotations, YOLO text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

from sam2_blocks.masks import coco_to_rle, rle_area, rle_to_coco
from sam2_blocks.polygons import rle_to_polygons
from sam2_blocks.values import Hw, Image

POLYGON_TOLERANCE_PX = 0.5
"""How far the polygons in our JSON may be from the mask's outline; its RLE is exact."""


@dataclass(frozen=True)
class Box:
    """One row of a detection file, in pixels."""

    xyxy: tuple[float, float, float, float]
    class_name: str = "object"
    class_id: int = 0
    confidence: float | None = None
    tracker_id: int | None = None


def boxes_to_detections(boxes: Sequence[Box]) -> sv.Detections:
    """Stack boxes into detections; a column that no box has stays None."""
    if not boxes:
        empty = sv.Detections.empty()
        empty.class_id = np.empty(0, dtype=int)
        empty.confidence = np.empty(0, dtype=np.float32)
        empty.data["class_name"] = np.empty(0, dtype=str)
        return empty
    confidence = [box.confidence for box in boxes]
    tracker_id = [box.tracker_id for box in boxes]
    return sv.Detections(
        xyxy=np.array([box.xyxy for box in boxes], dtype=np.float32),
        class_id=np.array([box.class_id for box in boxes], dtype=int),
        confidence=None if None in confidence else np.array(confidence, dtype=np.float32),
        tracker_id=None if None in tracker_id else np.array(tracker_id, dtype=int),
        data={"class_name": np.array([box.class_name for box in boxes])},
    )


def rows_to_detections(rows: object) -> sv.Detections:
    """Make detections from plain data.

    Args:
        rows: a list, or a mapping whose ``detections`` is one. Each row is ``[x0, y0, x1, y1]`` or
            a mapping with ``box_xyxy`` and optionally ``confidence``, ``class_id``,
            ``class_name``, ``tracker_id``; other keys are ignored.

    Raises:
        TypeError: if it is no such list.
        ValueError: if a row is wrong; the message names the row.
    """
    if isinstance(rows, Mapping) and "detections" in rows:
        rows = rows["detections"]
    if isinstance(rows, np.ndarray):
        rows = rows.tolist()
    if not isinstance(rows, list):
        raise TypeError(f"wants a list of boxes, got {type(rows).__name__}")
    return boxes_to_detections([_row_to_box(index, row) for index, row in enumerate(rows)])


def detections_to_rows(detections: sv.Detections) -> list[dict[str, Any]]:
    """Make plain rows of detections, with the masks as COCO RLE and as polygons."""
    rows = []
    for index in range(len(detections)):
        row: dict[str, Any] = {"box_xyxy": [float(x) for x in detections.xyxy[index]]}
        if detections.confidence is not None:
            row["confidence"] = float(detections.confidence[index])
        if detections.class_id is not None:
            row["class_id"] = int(detections.class_id[index])
        if detections.tracker_id is not None:
            row["tracker_id"] = int(detections.tracker_id[index])
        for name, column in detections.data.items():
            if name not in ("rle_mask", "polygons"):
                row[name] = _plain(column[index])
        if "rle_mask" in detections.data:
            row.update(_mask_fields(detections.data["rle_mask"][index]))
        rows.append(row)
    return rows


def load_json(path: Path) -> sv.Detections:
    """Read our own JSON: ``{"detections": [{"box_xyxy": [x0, y0, x1, y1], …}]}``."""
    return rows_to_detections(_read_json(path))


def load_yolo(path: Path, image: Image, classes: Sequence[str] = ()) -> sv.Detections:
    """Read YOLO text: ``class cx cy w h [confidence]`` or ``class x y x y x y …``, all in 0..1.

    Args:
        path: the text file.
        image: the picture, for its size.
        classes: class names by id.

    Raises:
        ValueError: if a line is malformed; the message gives file and line.
    """
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                boxes.append(_yolo_box([float(part) for part in line.split()], image.hw, classes))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}, got {line.strip()!r}") from error
    return boxes_to_detections(boxes)


class CocoBoxes:
    """The boxes of one COCO annotation file, by picture.

    Args:
        path: the JSON file.

    Raises:
        ValueError: if it is not COCO.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = _read_json(path)
        try:
            names = {row["id"]: row["name"] for row in data["categories"]}
            self._images = {row["file_name"]: row for row in data["images"]}
            self._boxes: dict[int, list[Box]] = {row["id"]: [] for row in data["images"]}
            for row in data["annotations"]:
                self._boxes[row["image_id"]].append(_coco_box(row, names))
        except (KeyError, TypeError, ValueError) as error:
            wanted = "images, annotations and categories that refer to each other"
            raise ValueError(f"{path}: not COCO, wants {wanted} ({error!r})") from error

    def load(self, image: Image) -> sv.Detections:
        """Return the boxes of a picture, found by its id or by its file name.

        Raises:
            ValueError: if the file does not list the picture, or lists another size.
        """
        name = image.path.name if image.path else image.id
        row = self._images.get(image.id) or self._images.get(name)
        if row is None:
            raise ValueError(f"{self.path}: lists no picture {image.id!r}")
        height, width = image.hw
        if (row.get("height", height), row.get("width", width)) != image.hw:
            raise ValueError(
                f"{self.path}: says {name!r} is {row['width']}x{row['height']} pixels, "
                f"the picture is {width}x{height}"
            )
        return boxes_to_detections(self._boxes[row["id"]])


def _row_to_box(index: int, row: object) -> Box:
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else {"box_xyxy": row}
    try:
        x0, y0, x1, y1 = (float(value) for value in fields["box_xyxy"])
        return Box(
            (x0, y0, x1, y1),
            str(fields.get("class_name", "object")),
            int(fields.get("class_id", 0)),
            None if fields.get("confidence") is None else float(fields["confidence"]),
            None if fields.get("tracker_id") is None else int(fields["tracker_id"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"row {index}: wants box_xyxy [x0, y0, x1, y1], got {row!r}") from error


def _coco_box(row: Mapping[str, Any], names: Mapping[int, str]) -> Box:
    x, y, width, height = (float(value) for value in row["bbox"])
    category = int(row["category_id"])
    confidence = float(row["score"]) if "score" in row else None
    return Box((x, y, x + width, y + height), names[category], category, confidence)


def _yolo_box(numbers: Sequence[float], hw: Hw, classes: Sequence[str]) -> Box:
    if len(numbers) in (5, 6):
        cx, cy, width, height = numbers[1:5]
        x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    elif len(numbers) >= 7 and len(numbers) % 2:
        xs, ys = numbers[1::2], numbers[2::2]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    else:
        raise ValueError("wants 5, 6 or an odd number of values from 7 up")
    class_id = int(numbers[0])
    name = classes[class_id] if 0 <= class_id < len(classes) else str(class_id)
    high, wide = hw
    confidence = numbers[5] if len(numbers) == 6 else None
    return Box((x0 * wide, y0 * high, x1 * wide, y1 * high), name, class_id, confidence)


def _mask_fields(coco: Mapping[str, Any]) -> dict[str, Any]:
    """The mask of one row: exact as RLE, and as polygons that say how exact they are."""
    rle = coco_to_rle(coco)
    polygons = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=POLYGON_TOLERANCE_PX)
    return {
        "area_px": int(rle_area(rle)),
        "segmentation": rle_to_coco(rle),
        "polygons": [ring.ravel().tolist() for ring in polygons.outer],
        "polygons_iou": round(float(polygons.iou), 4),
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays into what JSON can hold."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

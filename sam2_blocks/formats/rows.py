"""Detections ↔ files: our JSON rows, COCO annotations, YOLO text."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.errors import did_you_mean
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_to_coco
from sam2_blocks.values import Hw, Image

POLYGON_TOLERANCE_PX = 0.5
"""How far the polygons in our JSON may be from the mask's outline; its RLE is exact."""

SLACK = 1e-3
"""How far a number that shall be in 0..1 may be outside, since writers round."""

MAX_TRACED_RUNS = 20_000
"""Noise has no outline worth its time: masks of more runs are written as RLE alone."""


@dataclass(frozen=True)
class Box:
    """One row of a detection file, in pixels."""

    xyxy: tuple[float, float, float, float]
    class_name: str = "object"
    class_id: int = 0
    confidence: float | None = None
    tracker_id: int | None = None


def boxes_to_detections(boxes: Sequence[Box]) -> sv.Detections:
    """Stack boxes into detections; a column that no box has stays None.

    Raises:
        ValueError: if some boxes have a confidence or tracker id and others have not.
    """
    if not boxes:
        empty = sv.Detections.empty()
        empty.class_id = np.empty(0, dtype=int)
        empty.confidence = np.empty(0, dtype=np.float32)
        empty.data["class_name"] = np.empty(0, dtype=str)
        return empty
    return sv.Detections(
        xyxy=np.array([box.xyxy for box in boxes], dtype=np.float32),
        class_id=np.array([box.class_id for box in boxes], dtype=int),
        confidence=_column("confidence", [box.confidence for box in boxes], np.float32),
        tracker_id=_column("tracker_id", [box.tracker_id for box in boxes], int),
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


def detections_to_rows(detections: sv.Detections, *, polygons: bool = True) -> list[dict[str, Any]]:
    """Make plain rows of detections, with the masks as COCO RLE.

    Args:
        detections: with ``data["rle_mask"]`` where there are masks.
        polygons: trace the masks too, except those of more than `MAX_TRACED_RUNS` runs.
    """
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
            row.update(_mask_fields(detections.data["rle_mask"][index], polygons=polygons))
        rows.append(row)
    return rows


def load_json(path: Path) -> sv.Detections:
    """Read our own JSON: ``{"detections": [{"box_xyxy": [x0, y0, x1, y1], …}]}``."""
    try:
        return rows_to_detections(_read_json(path))
    except (TypeError, ValueError) as error:
        named = str(error).startswith(str(path))
        raise ValueError(str(error) if named else f"{path}: {error}") from error


def load_yolo(path: Path, image: Image, classes: Sequence[str] = ()) -> sv.Detections:
    """Read YOLO text: ``class cx cy w h`` or ``class x y x y x y …``, and a confidence if any.

    All but the class are shares of the picture, 0 to 1. A line of a tracker, which ends in a number
    of its own, has no form that can be told from these; it is refused unless that number is 0 or 1.

    Args:
        path: the text file.
        image: the picture, for its size.
        classes: class names by id.

    Raises:
        ValueError: if a line is malformed; the message gives file and line.
    """
    boxes = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                boxes.append(_yolo_box([float(part) for part in line.split()], image.hw, classes))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {number}: {error}, got {line.strip()!r}") from error
    try:
        return boxes_to_detections(boxes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


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
            annotations = list(data["annotations"])
            names = {row["id"]: row["name"] for row in data["categories"]}
            rows = list(data["images"])
            self._images: dict[str, dict[str, Any]] = {row["file_name"]: row for row in rows}
            self._boxes: dict[int, list[Box]] = {row["id"]: [] for row in rows}
            self._by_file_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                self._by_file_name[PurePath(row["file_name"]).name].append(row)
            self._taken: dict[int, str] = {}
        except (KeyError, TypeError, ValueError) as error:
            wanted = "images, annotations and categories that refer to each other"
            raise ValueError(f"{path}: not COCO, wants {wanted} ({error!r})") from error
        for key, found in (("file_name", self._images), ("id", self._boxes)):
            if len(found) < len(rows):
                twice = Counter(row[key] for row in rows).most_common(1)[0][0]
                raise ValueError(f"{path}: lists two images with {key} {twice!r}; give one entry")
        for row in annotations:
            try:
                self._boxes[row["image_id"]].append(_coco_box(row, names))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                shown = row.get("id", row) if isinstance(row, Mapping) else row
                raise ValueError(f"{path}: annotation {shown!r} is wrong: {error!r}") from error

    def load(self, image: Image) -> sv.Detections:
        """Return the boxes of a picture, found by its id or by its file name.

        Raises:
            ValueError: if the file does not list the picture, or lists another size.
        """
        row = self._find(image.id)
        height, width = image.hw
        listed = row.get("height", height), row.get("width", width)
        if listed != image.hw:
            raise ValueError(
                f"{self.path}: says {row['file_name']!r} is {listed[1]}x{listed[0]} pixels, "
                f"the picture is {width}x{height}"
            )
        taken_by = self._taken.setdefault(row["id"], image.id)
        if taken_by != image.id:
            raise ValueError(
                f"{self.path}: lists {row['file_name']!r} once, but both {taken_by!r} and "
                f"{image.id!r} end in that name"
            )
        return boxes_to_detections(self._boxes[row["id"]])

    def _find(self, image_id: str) -> dict[str, Any]:
        """The row of exactly this name, else the only one of which one name ends in the other."""
        if image_id in self._images:
            return self._images[image_id]
        candidates = self._by_file_name[PurePath(image_id).name]
        found = [row for row in candidates if _same_end(row["file_name"], image_id)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(repr(row["file_name"]) for row in found[:3])
            raise ValueError(f"{self.path}: {image_id!r} could be any of {names}")
        hint = did_you_mean(image_id, self._images)
        raise ValueError(f"{self.path}: lists no picture {image_id!r}.{hint}")


def _column(name: str, values: Sequence[float | None], dtype: Any) -> NDArray[Any] | None:
    given = [index for index, value in enumerate(values) if value is not None]
    if given and len(given) < len(values):
        without = next(index for index, value in enumerate(values) if value is None)
        raise ValueError(f"row {given[0]} has a {name}, row {without} has none; give all or none")
    return np.array(values, dtype=dtype) if given else None


def _row_to_box(index: int, row: object) -> Box:
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else {"box_xyxy": row}
    try:
        x0, y0, x1, y1 = (_finite(value) for value in fields["box_xyxy"])
        name, class_id = fields.get("class_name"), fields.get("class_id")
        confidence, tracker_id = fields.get("confidence"), fields.get("tracker_id")
        return Box(
            (x0, y0, x1, y1),
            "object" if name is None else str(name),
            0 if class_id is None else _id(class_id),
            None if confidence is None else _finite(confidence),
            None if tracker_id is None else _id(tracker_id),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"row {index}: wants box_xyxy [x0, y0, x1, y1] and finite numbers, got {row!r}"
        ) from error


def _finite(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _id(value: Any) -> int:
    return int(np.int64(int(value)))  # what detections can hold


def _same_end(one: str, other: str) -> bool:
    first, second = PurePath(one).parts, PurePath(other).parts
    shared = min(len(first), len(second))
    return first[-shared:] == second[-shared:]


def _coco_box(row: Mapping[str, Any], names: Mapping[int, str]) -> Box:
    x, y, width, height = (_finite(value) for value in row["bbox"])
    category = int(row["category_id"])
    confidence = None if row.get("score") is None else _finite(row["score"])
    return Box((x, y, x + width, y + height), names[category], category, confidence)


def _yolo_box(numbers: Sequence[float], hw: Hw, classes: Sequence[str]) -> Box:
    if len(numbers) in (5, 6):
        cx, cy, width, height = numbers[1:5]
        x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    elif len(numbers) >= 7:
        corners = numbers[1 : len(numbers) - 1 + len(numbers) % 2]
        xs, ys = corners[::2], corners[1::2]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    else:
        raise ValueError("wants a class and 4 numbers of a box, or 6 and more of an outline")
    if not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]):
        raise ValueError("wants a whole class number and finite values")
    if not all(-SLACK <= number <= 1 + SLACK for number in numbers[1:]):
        raise ValueError(
            "wants shares of the picture, 0 to 1; are these pixels, or a tracker's id?"
        )
    class_id = _id(numbers[0])
    name = classes[class_id] if 0 <= class_id < len(classes) else str(class_id)
    high, wide = hw
    confidence = None if len(numbers) % 2 else numbers[-1]
    return Box((x0 * wide, y0 * high, x1 * wide, y1 * high), name, class_id, confidence)


def _mask_fields(coco: Mapping[str, Any], *, polygons: bool) -> dict[str, Any]:
    """The mask of one row: exact as RLE, and as polygons that say how exact they are."""
    rle = coco_to_rle(coco)
    fields: dict[str, Any] = {"area_px": int(rle_area(rle)), "segmentation": rle_to_coco(rle)}
    if polygons and len(rle.counts) <= MAX_TRACED_RUNS:
        traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=POLYGON_TOLERANCE_PX)
        fields["polygons"] = [ring.ravel().tolist() for ring in traced.outer]
        fields["polygons_iou"] = round(float(traced.iou), 4)
    return fields


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error})") from error


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays into what JSON can hold, anything else odd into text."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | bool | int | float | list | dict | None) else str(value)

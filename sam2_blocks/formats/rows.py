"""Detections ↔ rows of plain data: what our own JSON files and answers hold."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.plain import DumpOptions, to_plain
from sam2_blocks.masks.detections import RLE_COLUMN, to_rles
from sam2_blocks.masks.polygons import Polygons, rles_to_polygons
from sam2_blocks.masks.rle import rle_area, rle_to_coco
from sam2_blocks.values import Rle

MAX_TRACED_RUNS = 20_000
"""Noise has no outline worth its time: masks of more runs are written as RLE alone."""

TRACED_TOGETHER = 2**14
"""Runs of several pictures; with more there is nothing left to save."""


@dataclass(frozen=True)
class Box:
    """One row of a detection file.

    Attributes:
        xyxy: edges in pixels of the picture.
        class_name: of the object.
        class_id: of the class; None if the file has only names.
        confidence: 0 to 1, if known.
        tracker_id: which object of a video, if known.
    """

    xyxy: tuple[float, float, float, float]
    class_name: str = "object"
    class_id: int | None = None
    confidence: float | None = None
    tracker_id: int | None = None


def boxes_to_detections(
    boxes: Sequence[Box], numbers: dict[str, int] | None = None
) -> sv.Detections:
    """Stack boxes into detections; a column that no box has stays None.

    Args:
        boxes: a class that has no id gets the number of its name.
        numbers: class ids by name, to which those of new names are added; they are the same in
            all pictures for which the same mapping is given. Without it they start at 0.

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
        class_id=np.array(_class_ids(boxes, {} if numbers is None else numbers), dtype=int),
        confidence=_column("confidence", [box.confidence for box in boxes], np.float32),
        tracker_id=_column("tracker_id", [box.tracker_id for box in boxes], int),
        data={"class_name": np.array([box.class_name for box in boxes])},
    )


def _class_ids(boxes: Sequence[Box], numbers: dict[str, int]) -> list[int]:
    """The ids of the boxes' classes; names without one get numbers that nothing else has."""
    given = {box.class_name: box.class_id for box in boxes if box.class_id is not None}
    used = {*given.values(), *numbers.values()}
    ids = []
    for box in boxes:
        class_id = box.class_id
        if class_id is None and box.class_name in given:
            class_id = given[box.class_name]
        if class_id is None:
            if box.class_name not in numbers:
                numbers[box.class_name] = next(n for n in count() if n not in used)
                used.add(numbers[box.class_name])
            class_id = numbers[box.class_name]
        ids.append(class_id)
    return ids


def settle_wrong(wrong: Sequence[str], what: str, *, skip: bool, source: str = "") -> None:
    """Refuse a file for its first wrong entry, or warn that all wrong ones were left out.

    Args:
        wrong: what is wrong with each of them; nothing happens if it is empty.
        what: their name in the warning, such as ``lines that are wrong``.
        skip: whether they were left out.
        source: where the warning says they are, if ``wrong`` does not say it.

    Raises:
        ValueError: if there are some and they are not to be left out.

    Warns:
        FileWarning: if some were left out; it names the line that calls the caller.
    """
    if wrong and not skip:
        raise ValueError(wrong[0])
    if wrong:
        prefix = f"{source}: " if source else ""
        text = f"{prefix}left out {len(wrong)} {what}: {wrong[0]}"
        warnings.warn(text, FileWarning, stacklevel=3)


def rows_to_detections(rows: object, numbers: dict[str, int] | None = None) -> sv.Detections:
    """Make detections from plain data.

    Args:
        rows: a list, or a mapping whose ``detections`` is one. Each row is ``[x0, y0, x1, y1]`` or
            a mapping with ``box_xyxy`` and optionally ``confidence``, ``class_id``,
            ``class_name``, ``tracker_id``; other keys are ignored.
        numbers: see `boxes_to_detections`.

    Raises:
        TypeError: if it is no such list.
        ValueError: if a row is wrong; the message names the row.

    Example:
        >>> detections = rows_to_detections([{"box_xyxy": [10, 20, 40, 60], "class_name": "cup"}])
        >>> detections.xyxy.tolist(), detections.data["class_name"].tolist()
        ([[10.0, 20.0, 40.0, 60.0]], ['cup'])
    """
    if isinstance(rows, Mapping) and "detections" in rows:
        rows = rows["detections"]
    if isinstance(rows, np.ndarray):
        rows = rows.tolist()
    if not isinstance(rows, list):
        raise TypeError(f"wants a list of boxes, got {type(rows).__name__}")
    boxes = [_row_to_box(index, row) for index, row in enumerate(rows)]
    return boxes_to_detections(boxes, numbers)


def detections_to_rows(
    detections: sv.Detections, options: DumpOptions | None = None
) -> list[dict[str, Any]]:
    """Make plain rows of detections.

    Args:
        detections: with masks of any form, or without.
        options: how masks are written; those of more than `MAX_TRACED_RUNS` runs as RLE alone.

    Raises:
        ValueError: if ``data["rle_mask"]`` is there in place of masks, and wrong.
    """
    [rows] = each_to_rows([detections], options)
    return rows


def each_to_rows(
    many: Iterable[sv.Detections], options: DumpOptions | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Make the rows of detections of several pictures, as `detections_to_rows` does.

    The masks of a few pictures are traced together, which for small ones takes half the time.

    Args:
        many: detections; some are read before the first rows come.
        options: how masks are written.

    Raises:
        ValueError: as `detections_to_rows`.
    """
    options = options or DumpOptions()
    for batch in _traced_together(many):
        wanted = [rle for _, rles in batch for rle in rles if _is_traced(rle, options)]
        tolerance = options.tolerance_px
        traced = iter(rles_to_polygons(wanted, hole_policy="bridge", tolerance_px=tolerance))
        for detections, rles in batch:
            rows = [_fields(detections, index) for index in range(len(detections))]
            for row, rle in zip(rows, rles, strict=False):  # without masks there are no run lengths
                row.update(_mask_fields(rle, traced, options))
            yield rows


def _traced_together(
    many: Iterable[sv.Detections],
) -> Iterator[list[tuple[sv.Detections, Sequence[Rle]]]]:
    """Detections with their masks, if they have any, of so many pictures as have few runs."""
    batch: list[tuple[sv.Detections, Sequence[Rle]]] = []
    runs = 0
    for detections in many:
        has_masks = detections.mask is not None or RLE_COLUMN in detections.data
        rles = to_rles(detections) if has_masks else ()
        batch.append((detections, rles))
        runs += sum(len(rle.counts) for rle in rles)
        if runs >= TRACED_TOGETHER:
            yield batch
            batch, runs = [], 0
    if batch:
        yield batch


def _fields(detections: sv.Detections, index: int) -> dict[str, Any]:
    """Everything but the mask."""
    row: dict[str, Any] = {"box_xyxy": [float(x) for x in detections.xyxy[index]]}
    if detections.confidence is not None:
        row["confidence"] = float(detections.confidence[index])
    if detections.class_id is not None:
        row["class_id"] = int(detections.class_id[index])
    if detections.tracker_id is not None:
        row["tracker_id"] = int(detections.tracker_id[index])
    for name, column in detections.data.items():
        if name not in (RLE_COLUMN, "polygons"):
            value = to_plain(column[index])
            row[name] = None if value != value else value  # NaN: this row has none
    return row


def _column(name: str, values: Sequence[float | None], dtype: Any) -> NDArray[Any] | None:
    given = [index for index, value in enumerate(values) if value is not None]
    if given and len(given) < len(values):
        without = next(index for index, value in enumerate(values) if value is None)
        raise ValueError(f"row {given[0]} has a {name}, row {without} has none; give all or none")
    return np.array(values, dtype=dtype) if given else None


def _row_to_box(index: int, row: object) -> Box:
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else {"box_xyxy": row}
    try:
        x0, y0, x1, y1 = (finite(value) for value in fields["box_xyxy"])
        name, class_id = fields.get("class_name"), fields.get("class_id")
        confidence, tracker_id = fields.get("confidence"), fields.get("tracker_id")
        return Box(
            (x0, y0, x1, y1),
            "object" if name is None else str(name),
            None if class_id is None else whole_id(class_id),
            None if confidence is None else finite(confidence),
            None if tracker_id is None else whole_id(tracker_id),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"row {index}: wants box_xyxy [x0, y0, x1, y1] and finite numbers, got {row!r}"
        ) from error


def finite(value: Any) -> float:
    """Read a number.

    Raises:
        TypeError, ValueError: if it is none, or not finite.
    """
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def whole_id(value: Any) -> int:
    """Read a number of a class or a track.

    Raises:
        TypeError, ValueError, OverflowError: if it is no whole number that detections can hold.
    """
    return int(np.int64(int(value)))


def _is_traced(rle: Rle, options: DumpOptions) -> bool:
    return options.polygons and len(rle.counts) <= MAX_TRACED_RUNS


def _mask_fields(rle: Rle, traced: Iterator[Polygons], options: DumpOptions) -> dict[str, Any]:
    """The mask of a row: exact as RLE, and as polygons that say how exact they are."""
    fields: dict[str, Any] = {"area_px": int(rle_area(rle))}
    if options.rle:
        fields["segmentation"] = rle_to_coco(rle)
    if _is_traced(rle, options):
        polygons = next(traced)
        fields["polygons"] = [ring.ravel().tolist() for ring in polygons.outer]
        fields["polygons_iou"] = round(float(polygons.iou), 4)
    return fields

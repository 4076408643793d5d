"""Outputs of pipelines as typed columns of Arrow, by kind; nothing is JSON text.

Detections are a list of structs, as in published tables of SA-1B: ``segmentation`` (``size`` and
compressed ``counts``, the mask, exactly), ``bbox`` (x, y, width, height in pixels, the tight one of
the mask), ``area`` in pixels, ``class_id``, ``class_name``, ``confidence``, ``iou_prediction``,
``tracker_id``, and of rows that came from a COCO file ``annotation_id``, if it is a whole number,
and ``iscrowd``; what a row does not have is null.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import supervision as sv
from PIL import Image as Pil
from pycocotools import mask as coco_mask

from sam2_blocks.formats.coco_boxes import ANNOTATION_ID, IS_CROWD
from sam2_blocks.formats.parquet import cell_to_text, load_pyarrow, text_to_cell
from sam2_blocks.masks.detections import RLE_COLUMN, to_rles
from sam2_blocks.masks.rle import coco_to_rle, rle_to_coco, rles_to_boxes_xyxy
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import Hw, Image

DETECTIONS = frozenset(
    {
        "object_detection_prediction",
        "instance_segmentation_prediction",
        "rle_instance_segmentation_prediction",
        "keypoint_detection_prediction",
    }
)
LIST_OF = "list of "


@dataclass(frozen=True)
class Column:
    """How values of a kind are cells.

    Attributes:
        type: of Arrow.
        cell: makes plain data of that type of a value.
    """

    type: Any
    cell: Callable[[Any], Any]


def find_column(kinds: Sequence[str]) -> Column | None:
    """Find the column of the first of a socket's kinds that has one; None if none has."""
    return next((found for kind in kinds if (found := _column_of(kind))), None)


def detections_to_structs(found: sv.Detections) -> list[dict[str, Any]]:
    """Make the cell of detections; see the module.

    Raises:
        ValueError: if ``data["rle_mask"]`` is there in place of masks, and wrong.
    """
    has_masks = found.mask is not None or RLE_COLUMN in found.data
    rles = [rle_to_coco(rle) for rle in to_rles(found)] if has_masks else [None] * len(found)
    rows = []
    for index, rle in enumerate(rles):
        x0, y0, x1, y1 = (float(value) for value in found.xyxy[index])
        row = {name: _cell_of(found, COLUMN.get(name, name), index) for name in ROW_FIELDS}
        row |= {"segmentation": rle, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": None}
        row |= {
            "annotation_id": whole_number(row["annotation_id"]),
            "iscrowd": bool(row["iscrowd"]),
        }
        if rle is not None:
            row["bbox"] = coco_mask.toBbox(rle).tolist()
            row["area"] = int(coco_mask.area(rle))
        rows.append(row)
    return rows


def structs_to_detections(rows: Sequence[Mapping[str, Any]], image_hw: Hw) -> sv.Detections:
    """Undo `detections_to_structs`.

    Args:
        rows: a cell.
        image_hw: size of the picture, for the masks.

    Raises:
        ValueError: if run lengths are wrong.
    """
    if not rows:
        return sv.Detections.empty()
    rles = [coco_to_rle(row["segmentation"]) for row in rows if row["segmentation"] is not None]
    names = [name and cell_to_text(name) for name in (row["class_name"] for row in rows)]
    whole = len(rles) == len(rows)
    data: dict[str, Any] = {} if None in names else {"class_name": np.array(names, np.str_)}
    if (ids := _array(rows, "annotation_id", np.int64)) is not None:
        data[ANNOTATION_ID] = ids
    if any(row["iscrowd"] for row in rows):
        data[IS_CROWD] = np.array([int(row["iscrowd"]) for row in rows])
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
    return sv.Detections(
        xyxy=(rles_to_boxes_xyxy(rles) if whole else np.array(boxes)).astype(np.float32),
        mask=MaskStack.from_rles(rles, image_hw) if whole else None,
        class_id=_array(rows, "class_id", np.int64),
        confidence=_array(rows, "confidence", np.float32),
        tracker_id=_array(rows, "tracker_id", np.int64),
        data=data,
    )


ROW_FIELDS: Mapping[str, str] = {
    "class_id": "int64",
    "class_name": "string",
    "confidence": "float32",
    "iou_prediction": "float32",
    "tracker_id": "int64",
    "annotation_id": "int64",
    "iscrowd": "bool",
}
"""Fields of a row beside its shape, and their types."""

COLUMN = {"annotation_id": ANNOTATION_ID, "iscrowd": IS_CROWD}
"""Columns of ``data`` that are called otherwise, or elsewhere."""


def _column_of(kind: str) -> Column | None:
    if kind.startswith(LIST_OF):
        inner = _column_of(kind.removeprefix(LIST_OF))
        if inner is None:
            return None
        cell = inner.cell
        return Column(load_pyarrow().list_(inner.type), lambda value: [cell(one) for one in value])
    if kind in DETECTIONS:
        return Column(_detections_type(), detections_to_structs)
    return _plain_column(kind)


def _plain_column(kind: str) -> Column | None:
    arrow = load_pyarrow()
    columns = {
        "string": Column(arrow.string(), lambda value: text_to_cell(str(value))),
        "integer": Column(arrow.int64(), int),
        "float": Column(arrow.float64(), float),
        "boolean": Column(arrow.bool_(), bool),
        "image": Column(
            arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]), _image_cell
        ),
    }
    return columns.get(kind)


def _detections_type() -> Any:
    arrow = load_pyarrow()
    rle = arrow.struct([("size", arrow.list_(arrow.int64())), ("counts", arrow.string())])
    fields = [
        ("segmentation", rle),
        ("bbox", arrow.list_(arrow.float64())),
        ("area", arrow.int64()),
        *((name, arrow.type_for_alias(alias)) for name, alias in ROW_FIELDS.items()),
    ]
    return arrow.list_(arrow.struct(fields))


def _image_cell(image: Image) -> dict[str, Any]:
    """A picture as ``datasets`` has them."""
    stream = io.BytesIO()
    Pil.fromarray(image.pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def _cell_of(found: sv.Detections, name: str, index: int) -> Any:
    column = found.data[name] if name in found.data else getattr(found, name, None)
    if column is None:
        return None
    value = column[index]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return text_to_cell(value)
    return None if value != value else value  # NaN: this row has none


def whole_number(value: Any) -> int | None:
    """The value if a column of whole numbers can hold it; COCO's ids may be anything."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if is_one else None


def _array(rows: Sequence[Mapping[str, Any]], name: str, dtype: Any) -> Any:
    values = [row[name] for row in rows]
    return None if None in values else np.array(values, dtype)

"""Boxes as the packs of ComfyUI pass them around, as rows that our kinds read.

==================  ============================================================
KJNodes, SAM 2      BBOX: ``[x0, y0, x1, y1]`` or ``[x, y, w, h]``, alone, in a list for all
                    pictures, or in a list of lists, one a picture
ComfyUI's own       BOUNDING_BOX: the same of ``{"x", "y", "width", "height"}``, with ``score``
Florence2           JSON: lists of boxes or ``{"bboxes", "labels"}``, one a picture
Impact Pack         SEGS: ``((h, w), [SEG, …])`` of one picture
==================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

Rows = list[dict[str, Any]]


def boxes_to_rows(boxes: Any, *, box_format: str = "xyxy") -> list[Rows]:
    """Make rows of ``box_xyxy``, and of class and confidence where they are known.

    Args:
        boxes: in one of the forms above; arrays and tensors do for lists.
        box_format: ``xyxy`` or ``xywh``, what four bare numbers mean; pixels.

    Returns:
        One list of rows a picture; a single one if all pictures have the same.

    Raises:
        ValueError: if it is none of the forms.
    """
    if _is_segs(boxes):
        return [[_seg_to_row(seg) for seg in boxes[1]]]
    listed = _to_lists(boxes)
    if _is_box(listed) or _is_labelled(listed):
        listed = [listed]
    if not isinstance(listed, list):
        raise ValueError(f"wants boxes, got {type(boxes).__name__}")
    pictures = [listed] if all(map(_is_box, listed)) else listed
    return [_picture_to_rows(picture, box_format) for picture in pictures]


def _picture_to_rows(picture: Any, box_format: str) -> Rows:
    labels: list[Any] = []
    if _is_labelled(picture):
        picture, labels = picture["bboxes"], picture.get("labels", [])
    if not isinstance(picture, list) or not all(map(_is_box, picture)):
        raise ValueError(
            f"wants lists of four numbers or mappings with x, y, width and height, got {picture!r}"
        )
    rows = [_box_to_row(box, box_format) for box in picture]
    for row, label in zip(rows, labels, strict=False):
        row["class_name"] = label
    return rows


def _box_to_row(box: Any, box_format: str) -> dict[str, Any]:
    if isinstance(box, Mapping):
        row = _box_to_row([box[name] for name in ("x", "y", "width", "height")], "xywh")
        return row if box.get("score") is None else {**row, "confidence": box["score"]}
    if box_format == "xywh" and len(box) == 4:
        x, y, width, height = box
        box = [x, y, x + width, y + height]
    return {"box_xyxy": box}


def _seg_to_row(seg: Any) -> dict[str, Any]:
    confidence = None if seg.confidence is None else float(seg.confidence)
    return {"box_xyxy": list(seg.bbox), "class_name": seg.label, "confidence": confidence}


def _to_lists(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_to_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _is_segs(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], tuple)
        and len(value[0]) == 2
        and all(hasattr(seg, "bbox") for seg in value[1])
    )


def _is_labelled(value: Any) -> bool:
    return isinstance(value, Mapping) and "bboxes" in value


def _is_box(value: Any) -> bool:
    """Whether this is meant as a box; that it has four numbers is checked with the rows."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(number, Real) for number in value)
    return isinstance(value, Mapping) and {"x", "y", "width", "height"} <= value.keys()

"""YOLO label files, a text a picture: boxes and outlines, in and out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import supervision as sv

from sam2_blocks.errors import did_you_mean
from sam2_blocks.files.reading import read_text
from sam2_blocks.formats.rows import Box, boxes_to_detections, whole_id
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.values import Hw, Image

SLACK = 1e-3
"""How far a number that shall be in 0..1 may be outside, since writers round."""


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
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                boxes.append(_yolo_box([float(part) for part in line.split()], image.hw, classes))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {number}: {error}, got {line.strip()!r}") from error
    try:
        return boxes_to_detections(boxes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def detections_to_yolo(
    found: sv.Detections, image_hw: Hw, *, classes: Sequence[str] = (), tolerance_px: float = 0.0
) -> str:
    """Write the masks of one picture: a line a mask, its class and its outline in 0..1.

    Holes and further parts are joined to one outline; a mask without pixels gets no line.

    Args:
        found: detections with masks.
        image_hw: size of the picture.
        classes: class names by number; without them the detections' own numbers are written.
        tolerance_px: how far outlines may be from the mask's, pixels.

    Raises:
        ValueError: if there are no masks, they are not of the picture's size, or ``classes`` lacks
            the class of one.
    """
    lines = _lines(found, image_hw, classes, tolerance_px)
    return "".join(f"{line}\n" for line in lines)


def _lines(
    found: sv.Detections, image_hw: Hw, classes: Sequence[str], tolerance_px: float
) -> Iterator[str]:
    height, width = image_hw
    for index, rle in enumerate(to_rles(found, image_hw)):
        traced = rle_to_polygons(
            rle, hole_policy="bridge", multipolygon_policy="bridge", tolerance_px=tolerance_px
        )
        number = _class_number(found, index, classes)
        for ring in traced.outer:
            shares = (ring / (width, height)).ravel()
            yield f"{number} {' '.join(f'{share:.6g}' for share in shares)}"


def _class_number(found: sv.Detections, index: int, classes: Sequence[str]) -> int:
    if not classes:
        return 0 if found.class_id is None else int(found.class_id[index])
    name = str(found.data["class_name"][index]) if "class_name" in found.data else "object"
    if name not in classes:
        hint = did_you_mean(name, classes)
        raise ValueError(f"mask {index} is a {name!r}, which 'classes' does not list.{hint}")
    return classes.index(name)


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
    class_id = whole_id(numbers[0])
    name = classes[class_id] if 0 <= class_id < len(classes) else str(class_id)
    high, wide = hw
    confidence = None if len(numbers) % 2 else numbers[-1]
    return Box((x0 * wide, y0 * high, x1 * wide, y1 * high), name, class_id, confidence)

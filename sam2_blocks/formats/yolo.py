"""YOLO label files, a text a picture, written; `yolo_lines` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import supervision as sv

from sam2_blocks.errors import did_you_mean
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.values import Hw


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

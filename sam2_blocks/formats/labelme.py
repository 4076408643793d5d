"""Labelme's JSON, a file a picture, for people to look at masks and correct them."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import supervision as sv
from PIL import Image as Pil

from sam2_blocks.formats.coco_boxes import is_crowd
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.outlines import painted_outlines
from sam2_blocks.masks.rle import rle_area, rle_crop, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.values import Image, Rle

LABELME_VERSION = "5.8.0"
"""Of the format; from 5.3 on it has masks."""

Shape = Literal["polygon", "mask", "rectangle"]


def detections_to_labelme(
    found: sv.Detections,
    image: Image,
    *,
    folder: Path,
    shape: Shape = "polygon",
    tolerance_px: float = 0.0,
) -> str:
    """Write the masks of one picture.

    Args:
        found: detections with masks; one without pixels has no shape, and neither has a crowd.
        image: the picture, which the file names by its path.
        folder: where the file will be.
        shape: outlines, which people can edit, exact bitmaps, or the tight boxes of the masks.
        tolerance_px: how far outlines may be from the mask's, pixels.

    Raises:
        ValueError: if there are no masks, or they are not of the picture's size.
    """
    height, width = image.hw
    document: dict[str, Any] = {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": list(_shapes(found, image, shape, tolerance_px)),
        "imagePath": _reach(image, folder),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(document, indent=1) + "\n"


def _reach(image: Image, folder: Path) -> str:
    """The picture's file as seen from the folder of its JSON file."""
    if image.path is None:
        return image.id
    try:
        return Path(os.path.relpath(image.path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return image.path.resolve().as_posix()


def _shapes(
    found: sv.Detections, image: Image, shape: Shape, tolerance_px: float
) -> Iterator[dict[str, Any]]:
    names = found.data.get("class_name")
    crowds = is_crowd(found)
    for index, rle in enumerate(to_rles(found, image.hw)):
        if crowds[index] or rle_area(rle) == 0:
            continue
        drawn = _drawn(rle, shape, tolerance_px)
        for one in drawn:
            yield {
                "label": "object" if names is None else str(names[index]),
                **one,
                "group_id": index if len(drawn) > 1 else None,
                "description": "",
                "flags": {},
            }


def _drawn(rle: Rle, shape: Shape, tolerance_px: float) -> list[dict[str, Any]]:
    if shape == "mask":
        return [_bitmap(rle)]
    if shape == "rectangle":
        x0, y0, x1, y1 = rle_to_box_xyxy(rle).astype(float).tolist()
        return [{"points": [[x0, y0], [x1 + 1, y1 + 1]], "shape_type": "rectangle"}]
    return _outlines(rle, tolerance_px)


def _outlines(rle: Rle, tolerance_px: float) -> list[dict[str, Any]]:
    rings = painted_outlines(rle, tolerance_px=tolerance_px)  # as Labelme paints them
    return [{"points": ring.tolist(), "shape_type": "polygon"} for ring in rings]


def _bitmap(rle: Rle) -> dict[str, Any]:
    box = rle_to_box_xyxy(rle)
    picture = Pil.fromarray(rle_to_mask(rle_crop(rle, box)))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {
        "points": box.reshape(2, 2).astype(float).tolist(),  # first and last pixel
        "shape_type": "mask",
        "mask": base64.b64encode(file.getvalue()).decode(),
    }

"""``export/labelme@v1``."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import supervision as sv
from PIL import Image as Pil

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_crop, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.values import Image, Rle

LABELME_VERSION = "5.8.0"
"""Of the format; from 5.3 on it has masks."""


class ExportLabelmeItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    shape: Literal["polygon", "mask"]
    tolerance: float


class ExportLabelme:
    """Write one JSON file a picture, for people to look at masks and correct them."""

    def __init__(self, resources: Resources) -> None:
        self._files = FilePerPicture(resources.files)

    def run(self, items: Sequence[ExportLabelmeItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._files.write(item, _text) for item in items]


def _text(item: ExportLabelmeItem, folder: Path) -> str:
    height, width = item.image.hw
    document: dict[str, Any] = {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": list(_shapes(item)),
        "imagePath": _reach(item.image, folder),
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


def _shapes(item: ExportLabelmeItem) -> Iterator[dict[str, Any]]:
    """Shapes of all masks; a mask without pixels has none."""
    found = item.predictions
    names = found.data.get("class_name")
    for index in range(len(found)):
        rle = coco_to_rle(found.data["rle_mask"][index])
        if rle_area(rle) == 0:
            continue
        drawn = [_bitmap(rle)] if item.shape == "mask" else _outlines(rle, item.tolerance)
        for shape in drawn:
            yield {
                "label": "object" if names is None else str(names[index]),
                **shape,
                "group_id": index if len(drawn) > 1 else None,
                "description": "",
                "flags": {},
            }


def _outlines(rle: Rle, tolerance_px: float) -> list[dict[str, Any]]:
    traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=tolerance_px)
    return [{"points": ring.tolist(), "shape_type": "polygon"} for ring in traced.outer]


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

"""Pipeline outputs → files, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as Pil

from sam2_blocks.engine.hookspecs import Exporter
from sam2_blocks.files.atomic import json_text, write_atomically, write_text
from sam2_blocks.formats.plain import to_plain
from sam2_blocks.values import Image

if TYPE_CHECKING:
    import supervision as sv


def export_image(image: Image, path: Path) -> Path:
    """Write a picture as PNG."""
    picture = Pil.fromarray(image.pixels)
    target = path.with_name(f"{path.name}.png")
    return write_atomically(target, lambda file: picture.save(file, "PNG"))


def export_detections(detections: sv.Detections, path: Path) -> Path:
    """Write detections as JSON: boxes, classes, COCO RLE and polygons, one row an object."""
    from sam2_blocks.formats.rows import detections_to_rows

    made = detections_to_rows(detections)
    rows = ",\n  ".join(json_text(row) for row in made)
    text = f'{{\n "detections": [\n  {rows}\n ]\n}}\n'
    return write_text(path.with_name(f"{path.name}.json"), text)


def export_json(value: Any, path: Path) -> Path:
    """Write a plain value as JSON."""
    text = json_text(to_plain(value), indent=1)
    return write_text(path.with_name(f"{path.name}.json"), f"{text}\n")


BUILTIN_EXPORTERS: Mapping[str, Exporter] = {
    "image": export_image,
    "object_detection_prediction": export_detections,
    "instance_segmentation_prediction": export_detections,
    "rle_instance_segmentation_prediction": export_detections,
    "keypoint_detection_prediction": export_detections,
    "string": export_json,
    "integer": export_json,
    "float": export_json,
    "boolean": export_json,
    "list_of_values": export_json,
    "dictionary": export_json,
}

SUFFIXES: Mapping[Exporter, str] = {
    export_image: ".png",
    export_detections: ".json",
    export_json: ".json",
}
"""What each adds to the path it is given."""

"""Pipeline outputs → files, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image as Pil

from sam2_blocks.engine.places import Exporter
from sam2_blocks.files.atomic import json_text
from sam2_blocks.formats.plain import to_plain
from sam2_blocks.values import Image

if TYPE_CHECKING:
    import supervision as sv


def write_image(image: Image, file: BinaryIO) -> None:
    """Write a picture as PNG."""
    Pil.fromarray(image.pixels).save(file, "PNG")


def write_jpeg(image: Image, file: BinaryIO) -> None:
    """Write a picture as JPEG: a tenth of the size, and not exact."""
    Pil.fromarray(image.pixels).save(file, "JPEG", quality=90)


def write_detections(detections: sv.Detections, file: BinaryIO) -> None:
    """Write detections as JSON: boxes, classes, COCO RLE and polygons, one row an object."""
    from sam2_blocks.formats.rows import detections_to_rows

    rows = ",\n  ".join(json_text(row) for row in detections_to_rows(detections))
    file.write(f'{{\n "detections": [\n  {rows}\n ]\n}}\n'.encode())


def write_json(value: Any, file: BinaryIO) -> None:
    """Write a plain value as JSON."""
    file.write(f"{json_text(to_plain(value), indent=1)}\n".encode())


IMAGE = Exporter(".png", write_image)
JPEG = Exporter(".jpg", write_jpeg)
DETECTIONS = Exporter(".json", write_detections)
JSON = Exporter(".json", write_json)

BUILTIN_EXPORTERS: Mapping[str, Exporter] = {
    "image": IMAGE,
    "object_detection_prediction": DETECTIONS,
    "instance_segmentation_prediction": DETECTIONS,
    "rle_instance_segmentation_prediction": DETECTIONS,
    "keypoint_detection_prediction": DETECTIONS,
    "string": JSON,
    "integer": JSON,
    "float": JSON,
    "boolean": JSON,
    "list_of_values": JSON,
    "dictionary": JSON,
}

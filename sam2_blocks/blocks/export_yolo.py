"""``export/yolo@v1``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import did_you_mean
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import coco_to_rle
from sam2_blocks.values import Image


class ExportYoloItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    classes: list[str]
    tolerance: float


class ExportYolo:
    """Write one text file a picture: a line an object, its class and its outline in 0..1."""

    def __init__(self, resources: Resources) -> None:
        self._files = FilePerPicture(resources.files)

    def run(self, items: Sequence[ExportYoloItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._files.write(item, _text) for item in items]


def _text(item: ExportYoloItem, _: Path) -> str:
    return "".join(f"{line}\n" for line in _lines(item))


def _lines(item: ExportYoloItem) -> Iterator[str]:
    """One line a mask; a mask without pixels has no outline and gets none."""
    found = item.predictions
    height, width = item.image.hw
    for index in range(len(found)):
        traced = rle_to_polygons(
            coco_to_rle(found.data["rle_mask"][index]),
            hole_policy="bridge",
            multipolygon_policy="bridge",
            tolerance_px=item.tolerance,
        )
        number = _class_number(found, index, item.classes)
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

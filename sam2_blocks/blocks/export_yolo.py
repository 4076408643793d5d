"""``export/yolo@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.formats.yolo import detections_to_yolo
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
    return detections_to_yolo(
        item.predictions, item.image.hw, classes=item.classes, tolerance_px=item.tolerance
    )

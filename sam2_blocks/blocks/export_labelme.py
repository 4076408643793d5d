"""``export/labelme@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.formats.labelme import detections_to_labelme
from sam2_blocks.values import Image


class ExportLabelmeItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    shape: Literal["polygon", "mask", "rectangle"]
    tolerance: float


class ExportLabelme:
    """Write one JSON file a picture, for people to look at masks and correct them."""

    def __init__(self, resources: Resources) -> None:
        self._files = FilePerPicture(resources.files)

    def run(self, items: Sequence[ExportLabelmeItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._files.write(item, _text) for item in items]


def _text(item: ExportLabelmeItem, folder: Path) -> str:
    return detections_to_labelme(
        item.predictions,
        item.image,
        folder=folder,
        shape=item.shape,
        tolerance_px=item.tolerance,
    )

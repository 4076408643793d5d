"""``detections/load@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import path_beside
from sam2_blocks.formats.coco import CocoBoxes
from sam2_blocks.formats.rows import boxes_to_detections, load_json
from sam2_blocks.formats.yolo import load_yolo
from sam2_blocks.values import Image


class LoadDetectionsItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    path: str
    format: Literal["auto", "json", "coco", "yolo"]
    classes: list[str]
    missing: Literal["error", "empty"]


class LoadDetections:
    """Read the boxes of each picture; a COCO file is parsed once for all of them."""

    def __init__(self, resources: Resources) -> None:
        self._coco: dict[Path, CocoBoxes] = {}

    def run(self, items: Sequence[LoadDetectionsItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._load_or_error(item) for item in items]

    def _load_or_error(self, item: LoadDetectionsItem) -> Mapping[str, Any] | Exception:
        try:
            return {"detections": self._load(item)}
        except (OSError, TypeError, ValueError) as error:
            return error

    def _load(self, item: LoadDetectionsItem) -> sv.Detections:
        path = path_beside(item.path, item.image)
        if not path.exists():
            if item.missing == "empty":
                return boxes_to_detections([])
            raise ValueError(
                f"{path}: no such file beside the picture. "
                "Set 'path', or 'missing: empty' if a picture may have no boxes."
            )
        form = item.format if item.format != "auto" else self._guess(path)
        if form == "yolo":
            return load_yolo(path, item.image, item.classes)
        return self._coco_of(path).load(item.image) if form == "coco" else load_json(path)

    def _guess(self, path: Path) -> str:
        if path.suffix.lower() == ".txt":
            return "yolo"
        with path.open(encoding="utf-8", errors="replace") as file:
            return "coco" if path in self._coco or '"annotations"' in file.read() else "json"

    def _coco_of(self, path: Path) -> CocoBoxes:
        if path not in self._coco:
            self._coco[path] = CocoBoxes(path)
        return self._coco[path]

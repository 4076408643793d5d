"""``detections/load@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ImageError
from sam2_blocks.files.per_picture import path_beside
from sam2_blocks.files.reading import read_json
from sam2_blocks.formats.coco_boxes import CocoBoxes
from sam2_blocks.formats.coco_results import CocoResults
from sam2_blocks.formats.images import boxes_to_upright, stored_orientation
from sam2_blocks.formats.json_boxes import load_json, sort_of_json
from sam2_blocks.formats.rows import boxes_to_detections
from sam2_blocks.formats.yolo_lines import (
    Columns,
    DataSet,
    YoloLabels,
    data_set_files,
    read_data_set,
)
from sam2_blocks.values import Image

Form = Literal["auto", "json", "coco", "coco_results", "yolo", "labelme", "roboflow", "ultralytics"]


class LoadDetectionsItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    path: str
    format: Form
    classes: list[str]
    classes_file: str
    reference: str
    columns: Columns
    crowds: Literal["skip", "keep"]
    boxes_frame: Literal["upright", "stored"]
    missing: Literal["error", "empty"]
    on_bad_entry: Literal["error", "skip"]


@dataclass
class _Kept:
    """A file for all pictures, or why it is none; and what it was when it was read."""

    stamp: int
    file: CocoBoxes | CocoResults | Exception


class LoadDetections:
    """Read the boxes of each picture; a file for all is parsed once, also if it is wrong."""

    def __init__(self, resources: Resources) -> None:
        self._files = resources.files
        self._kept: dict[tuple[Path, str], _Kept] = {}
        self._numbers: dict[str, int] = {}
        self._labels: dict[Columns, YoloLabels] = {}

    def run(self, items: Sequence[LoadDetectionsItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._load_or_error(item) for item in items]

    def _load_or_error(self, item: LoadDetectionsItem) -> Mapping[str, Any] | Exception:
        try:
            path = path_beside(item.path, item.image)
            self._note_reads(item, path)
            if path.exists():
                return {"detections": self._load_in_frame(item, path)}
        except (ImageError, OSError, TypeError, ValueError) as error:
            return error
        if item.missing == "empty":
            return {"detections": boxes_to_detections([])}
        return ValueError(
            f"{path}: no such file beside the picture. "
            "Set 'path', or 'missing: empty' if a picture may have no boxes."
        )

    def _note_reads(self, item: LoadDetectionsItem, path: Path) -> None:
        if not self._files.keeps_reads:  # looking for the files of a data set takes a while
            return
        files = [path]
        if item.reference:
            files.append(Path(item.reference))
        if item.classes_file:
            files.append(path_beside(item.classes_file, item.image))
        elif path.suffix.lower() == ".txt":
            files += data_set_files(path.parent)
        for file in files:
            self._files.note_read(file, item.image.id)

    def _load_in_frame(self, item: LoadDetectionsItem, path: Path) -> sv.Detections:
        """Boxes of the upright picture; where the file means the stored one, they are turned."""
        if item.boxes_frame == "upright":
            return self._load(item, path, item.image)
        orientation = stored_orientation(item.image.path)
        stored_hw = item.image.hw[::-1] if orientation >= 5 else item.image.hw
        blank = np.broadcast_to(np.uint8(0), (*stored_hw, 3))  # only its size is looked at
        found = self._load(item, path, replace(item.image, pixels=blank))
        found.xyxy = boxes_to_upright(found.xyxy, orientation, stored_hw)
        return found

    def _load(self, item: LoadDetectionsItem, path: Path, image: Image) -> sv.Detections:
        skip = item.on_bad_entry == "skip"
        if item.format == "yolo" or (item.format == "auto" and path.suffix.lower() == ".txt"):
            labels = self._labels.setdefault(item.columns, YoloLabels(item.columns))
            beside = _data_set_of(item)
            return labels.load(path, image.hw, item.classes, skip_wrong=skip, beside=beside)
        shared, data = self._shared(item, path)
        if isinstance(shared, Exception):
            raise shared
        if isinstance(shared, CocoBoxes):
            return shared.load(image, crowds=item.crowds == "keep", skip_wrong=skip)
        if isinstance(shared, CocoResults):
            return shared.load(image, classes=item.classes, skip_wrong=skip)
        for number, name in enumerate(item.classes):
            self._numbers.setdefault(name, number)
        return load_json(
            path,
            image.hw,
            form=item.format,
            numbers=self._numbers,
            skip_wrong=skip,
            data=data,
        )

    def _shared(
        self, item: LoadDetectionsItem, path: Path
    ) -> tuple[CocoBoxes | CocoResults | Exception | None, Any]:
        """A file for all pictures, read once as long as it is the same; else what is in it."""
        key, stamp = (path, item.reference), path.stat().st_mtime_ns
        kept = self._kept.get(key)
        if kept is not None and kept.stamp == stamp:
            return kept.file, None
        data: Any = None
        file: CocoBoxes | CocoResults | Exception | None
        try:
            data = read_json(path)
            form = sort_of_json(data) if item.format == "auto" else item.format
            file = self._open(form, path, data, item)
        except (OSError, TypeError, ValueError) as error:
            file = error
        if file is not None:
            self._kept[key] = _Kept(stamp, file)
        return file, data

    def _open(
        self, form: str, path: Path, data: Any, item: LoadDetectionsItem
    ) -> CocoBoxes | CocoResults | None:
        if form == "coco":
            return CocoBoxes(path, data)
        if form != "coco_results":
            return None
        return CocoResults(path, data, CocoBoxes(Path(item.reference)) if item.reference else None)


def _data_set_of(item: LoadDetectionsItem) -> DataSet | None:
    if not item.classes_file:
        return None
    return read_data_set(path_beside(item.classes_file, item.image))

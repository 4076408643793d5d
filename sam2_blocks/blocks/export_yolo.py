"""``export/yolo@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.atomic import write_text
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.formats.coco_boxes import SOURCE
from sam2_blocks.formats.yolo import ClassNumbers, data_yaml, detections_to_yolo, renumber
from sam2_blocks.formats.yolo_lines import CLASSES, read_data_set
from sam2_blocks.values import Image


class ExportYoloItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    classes: list[str]
    shape: Literal["polygon", "box"]
    tolerance: float


class ExportYolo:
    """Write one text file a picture, and the names of all classes into a ``data.yaml``."""

    def __init__(self, resources: Resources) -> None:
        self._outputs = resources.files
        self._files = FilePerPicture(resources.files)
        self._sets: dict[Path, _DataSet] = {}

    def run(self, items: Sequence[ExportYoloItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._write(item) for item in items]

    def finish(self) -> None:
        """Put classes in the order of their ids, now that all are known."""
        for data_set in self._sets.values():
            data_set.settle()
        self._outputs.claim_left(self)  # as they are
        self._sets.clear()

    def _write(self, item: ExportYoloItem) -> Mapping[str, Any] | Exception:
        try:
            data_set = self._set_of(item)
        except (OSError, ValueError) as error:
            return error
        written = self._files.write(item, lambda item, _: data_set.text_of(item))
        if isinstance(written, Exception):
            return written
        data_set.add(Path(written["path"]))
        return written

    def _set_of(self, item: ExportYoloItem) -> _DataSet:
        path = self._outputs.claim(_place_of_data(item.path), self)
        if path not in self._sets:
            kept = self._outputs.kept_in(path) and path.exists()
            known = read_data_set(path).classes if kept else {}
            names = [known.get(number, "") for number in range(max(known, default=-1) + 1)]
            self._sets[path] = _DataSet(path, ClassNumbers(item.classes, names))
        return self._sets[path]


class _DataSet:
    """The label files that share a ``data.yaml``."""

    def __init__(self, path: Path, numbers: ClassNumbers) -> None:
        self._path = path
        self._numbers = numbers
        self._labels: list[Path] = []
        self._written: list[str] | None = None

    def text_of(self, item: ExportYoloItem) -> str:
        """The label file of a picture, with classes numbered as they come."""
        found = item.predictions
        self._numbers.note(found.metadata.get(SOURCE, {}).get("categories", ()))
        self._numbers.note(found.metadata.get(CLASSES, ()))
        return detections_to_yolo(
            found,
            item.image.hw,
            number_of=lambda row: self._number_of(found, row),
            shape=item.shape,
            tolerance_px=item.tolerance,
        )

    def add(self, label: Path) -> None:
        """Note a label file, and write the names that are new, for a run that does not end."""
        self._labels.append(label)
        if self._numbers.names != self._written:
            self._write_names()

    def settle(self) -> None:
        """Give classes their last numbers, also in the files that are there."""
        numbers = self._numbers.settle()
        if not numbers:
            return
        for label in self._labels:
            write_text(label, renumber(label.read_text(encoding="utf-8"), numbers))
        self._write_names()

    def _write_names(self) -> None:
        self._written = list(self._numbers.names)
        write_text(self._path, data_yaml(self._written))

    def _number_of(self, found: sv.Detections, row: int) -> int:
        names = found.data.get("class_name")
        name = "object" if names is None else str(names[row])
        class_id = None if found.class_id is None else int(found.class_id[row])
        try:
            return self._numbers.number(name, class_id)
        except ValueError as error:
            raise ValueError(f"mask {row} {error}") from error


def _place_of_data(path: str) -> Path:
    """Beside the folder ``labels``: below the folders of a template that have no placeholder."""
    fixed = list(takewhile(lambda part: "{" not in part, PurePosixPath(path).parts[:-1]))
    if fixed and fixed[-1] == "labels":
        fixed.pop()
    return Path(*fixed, "data.yaml")

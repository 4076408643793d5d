"""``export/yolo@v1``."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.atomic import hidden_path, write_text
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.files.reading import read_text
from sam2_blocks.formats.coco_boxes import SOURCE
from sam2_blocks.formats.yolo import (
    ClassNumbers,
    KnownClasses,
    data_yaml,
    detections_to_yolo,
    numbers_in,
    read_known,
    renumber,
)
from sam2_blocks.formats.yolo_lines import CLASSES
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
        for path in self._outputs.claim_left(self):  # no picture of these was run again
            if known := read_known(path):
                self._sets[path] = self._data_set(path, (), known)
        for data_set in self._sets.values():
            data_set.settle()
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
            goes_on = self._outputs.kept_in(path) and path.exists()
            known = read_known(path) if goes_on else None
            self._sets[path] = self._data_set(path, item.classes, known)
        return self._sets[path]

    def _data_set(self, path: Path, classes: Sequence[str], known: KnownClasses | None) -> _DataSet:
        """Begin or go on; those of its label files that an earlier run finished go on to count."""
        files = [file for files in self._outputs.kept.values() for file in files]
        kept = [f for f in files if f.suffix == ".txt" and f.is_relative_to(path.parent)]
        settled = _Settled(path)
        if known and known.moving:
            settled.move(set(kept))
        settled.remove()
        return _DataSet(path, ClassNumbers(classes, known), kept, settled)


class _Settled:
    """Label files with their last numbers, before they take the places of the others."""

    def __init__(self, data_yaml: Path) -> None:
        self._labels_in = data_yaml.parent
        self._folder = hidden_path(data_yaml, ".settled")

    def write(self, label: Path, text: str) -> None:
        write_text(self._folder / label.relative_to(self._labels_in), text)

    def move(self, labels: Collection[Path]) -> None:
        """Put these in their places; those that were moved before are there.

        Others may be of pictures that went since then.
        """
        for file in [path for path in self._folder.rglob("*.txt") if path.is_file()]:
            label = self._labels_in / file.relative_to(self._folder)
            if label not in labels:
                continue
            label.parent.mkdir(parents=True, exist_ok=True)
            file.replace(label)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class _DataSet:
    """The label files that share a ``data.yaml``."""

    def __init__(
        self, path: Path, numbers: ClassNumbers, kept: Sequence[Path], settled: _Settled
    ) -> None:
        self._path = path
        self._settled = settled
        self._numbers = numbers
        self._kept = kept
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
        """Give classes their last numbers, also in the files that are there.

        Whenever this is cut short, the names and all label files have the old numbers, or what
        goes on with this run can give all of them the new ones.
        """
        if not (self._kept or self._labels):
            return
        used = set[int]().union(*(numbers_in(read_text(label)) for label in self._kept))
        numbers = self._numbers.settle(used)
        labels = {*self._kept, *self._labels} if numbers else set()
        for label in labels:
            self._settled.write(label, renumber(read_text(label), numbers))
        self._write_names(moving=bool(labels))
        if labels:
            self._settled.move(labels)
            self._write_names()
            self._settled.remove()

    def _write_names(self, *, moving: bool = False) -> None:
        self._written = list(self._numbers.names)
        known = self._numbers.known
        write_text(self._path, data_yaml(self._written, known and replace(known, moving=moving)))

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

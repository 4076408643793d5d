"""Lists of results as COCO's tools write them: no names, only ids of pictures and categories."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import supervision as sv

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.coco_boxes import WRONG, CocoBoxes, bbox_of, comparable_id
from sam2_blocks.formats.names import PictureNames
from sam2_blocks.formats.rows import Box, boxes_to_detections, finite, settle_wrong, whole_id
from sam2_blocks.values import Image

Entries = list[Mapping[str, Any]]


class CocoResults:
    """The boxes of one list of results, by picture.

    Args:
        path: the JSON file, for messages.
        rows: the list in it.
        reference: the annotation file that the results are of, which names pictures and
            categories. Without it the id of a picture is its file name, or the number in it.

    Raises:
        ValueError: if no entry says which picture it is of.
    """

    def __init__(self, path: Path, rows: Sequence[Any], reference: CocoBoxes | None = None) -> None:
        self.path = path
        self._reference = reference
        self._by_id: dict[int | str, Entries] = defaultdict(list)
        names: dict[str, int | str] = {}
        left_out = 0
        for row in rows:
            try:
                number = comparable_id(row["image_id"])
                self._by_id[number].append(row)
                names.setdefault(str(row.get("file_name", number)), number)
            except WRONG:
                left_out += 1
        if rows and not self._by_id:
            raise ValueError(f"{path}: not COCO results, wants entries with image_id")
        if left_out:
            text = f"{path}: left out {left_out} entries without image_id"
            warnings.warn(text, FileWarning, stacklevel=2)
        self._ids = names
        self._names = PictureNames(names, str(path))

    def load(
        self, image: Image, *, classes: Sequence[str] = (), skip_wrong: bool = False
    ) -> sv.Detections:
        """Return the boxes of a picture.

        Args:
            image: the picture.
            classes: class names by category id, where there is no annotation file.
            skip_wrong: leave out entries that are wrong, with a warning.

        Raises:
            ValueError: if no result is of the picture and there is no annotation file that lists
                it, or an entry is wrong.
        """
        boxes, wrong = [], []
        for row in self._rows_of(image):
            try:
                boxes.append(self._box_of(row, classes))
            except WRONG as error:
                wrong.append(f"{self.path}: a result of {image.id!r} is wrong: {error!r}")
        settle_wrong(wrong, "results", skip=skip_wrong)
        return boxes_to_detections(boxes)

    def _rows_of(self, image: Image) -> Entries:
        if self._reference is not None:
            return self._by_id.get(self._reference.id_of(image), [])
        stem = PurePath(image.id).stem
        if stem.isdecimal() and int(stem) in self._by_id:
            return self._by_id[int(stem)]
        return self._by_id[self._ids[self._names.find(image)]]

    def _box_of(self, row: Mapping[str, Any], classes: Sequence[str]) -> Box:
        x, y, width, height = bbox_of(row)
        number = comparable_id(row["category_id"])
        score = None if row.get("score") is None else finite(row["score"])
        corners = (x, y, x + width, y + height)
        if self._reference is not None:
            name, class_id = self._reference.category(number)
            return Box(corners, name, class_id, score)
        class_id = whole_id(number)
        name = classes[class_id] if 0 <= class_id < len(classes) else f"class_{class_id}"
        return Box(corners, name, class_id, score)

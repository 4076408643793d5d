"""Boxes out of COCO annotation files, by picture; one bad entry does not spoil a file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.errors import FileWarning
from sam2_blocks.files.reading import read_json
from sam2_blocks.formats.names import PictureNames
from sam2_blocks.formats.rows import Box, boxes_to_detections, finite, whole_id
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_to_box_xyxy
from sam2_blocks.values import Hw, Image

SOURCE = "coco"
"""In ``metadata`` of detections: the picture's id in its COCO file and the file's categories."""

ANNOTATION_ID = "coco_annotation_id"
IS_CROWD = "iscrowd"
"""Columns of ``data``, there only if the file has them."""

WANTED = "wants images, annotations and categories that refer to each other"
WRONG = (AttributeError, KeyError, TypeError, ValueError, OverflowError)


@dataclass
class _Picture:
    """One entry of ``images``, and what the file says of it."""

    row: Mapping[str, Any]
    annotations: list[Mapping[str, Any]] = field(default_factory=list)
    problem: str = ""
    taken_by: str = ""


class CocoBoxes:
    """The boxes of one COCO annotation file, by picture.

    What is wrong with an entry is said when its picture is asked for; entries that belong to no
    picture are left out, with one warning. Numbers may be written as texts.

    Args:
        path: the JSON file.
        data: what is in it, if it was read.

    Raises:
        ValueError: if it is not COCO.
    """

    def __init__(self, path: Path, data: Any = None) -> None:
        self.path = path
        data = read_json(path) if data is None else data
        try:
            annotations, images = _list_in(data, "annotations"), _list_in(data, "images")
            self._categories = _read_categories(_list_in(data, "categories"))
        except WRONG as error:
            raise ValueError(f"{path}: not COCO, {WANTED} ({error!r})") from error
        left_out: Counter[str] = Counter()
        self._pictures: dict[str, _Picture] = {}
        by_id = self._read_images(images, left_out)
        self._names = PictureNames(self._pictures, str(path))
        for row in annotations:
            number = _id_of(row, "image_id")
            picture = None if number is None else by_id.get(number)
            if picture is None:
                left_out["annotations of pictures that are not listed"] += 1
            else:
                picture.annotations.append(row)
        if left_out:
            found = ", ".join(f"{count} {what}" for what, count in left_out.items())
            warnings.warn(f"{path}: left out {found}", FileWarning, stacklevel=2)

    def load(
        self, image: Image, *, crowds: bool = False, skip_wrong: bool = False
    ) -> sv.Detections:
        """Return the boxes of a picture, found by its id or by its file name.

        Args:
            image: the picture.
            crowds: keep regions of many objects (``iscrowd: 1``), in the column ``iscrowd``.
            skip_wrong: leave out annotations that are wrong, with a warning.

        Raises:
            ValueError: if the file does not list the picture, or not once, or lists another size,
                or an annotation of it is wrong.
        """
        name = self._names.find(image)
        picture = self._pictures[name]
        if picture.problem:
            raise ValueError(f"{self.path}: {picture.problem}")
        check_size(f"{self.path}: says {name!r}", _size_of(picture.row), image.hw)
        if (picture.taken_by or image.id) != image.id:
            raise ValueError(
                f"{self.path}: lists {name!r} once, but both {picture.taken_by!r} and "
                f"{image.id!r} end in that name"
            )
        picture.taken_by = image.id
        rows, wrong = self._boxes_of(picture.annotations)
        if wrong and not skip_wrong:
            raise ValueError(f"{self.path}: {wrong[0]}")
        if wrong:
            text = f"{self.path}: left out {len(wrong)} wrong annotations of {name!r}: {wrong[0]}"
            warnings.warn(text, FileWarning, stacklevel=2)
        kept = [(row, box) for row, box in rows if crowds or not _is_crowd(row)]
        return self._with_identity(picture.row, kept)

    def id_of(self, image: Image) -> int | str:
        """Return the id by which a picture is listed.

        Raises:
            ValueError: if it is not.
        """
        return comparable_id(self._pictures[self._names.find(image)].row["id"])

    def category(self, number: int | str) -> tuple[str, int]:
        """Return the name and the class id of a category.

        Raises:
            ValueError: if the file does not list it.
        """
        category = self._categories.get(number)
        if category is None:
            raise ValueError(f"category {number!r} is not listed")
        return category["name"], category["class_id"]

    def _read_images(
        self, images: Iterable[Any], left_out: Counter[str]
    ) -> dict[int | str, _Picture]:
        by_id: dict[int | str, _Picture] = {}
        for row in images:
            try:
                name, number = str(row["file_name"]), comparable_id(row["id"])
            except WRONG:
                left_out["entries of images without file_name and id"] += 1
                continue
            known = self._pictures.get(name)
            if known is not None and known.row == row:
                continue  # said twice
            picture = _Picture(row)
            for key, twice in (
                ("file_name", known),
                ("id", by_id.get(number)),
            ):
                if twice:
                    picture.problem = f"lists two images with {key} {row[key]!r}; give one entry"
                    twice.problem = picture.problem
            self._pictures[name] = by_id[number] = picture
        return by_id

    def _boxes_of(
        self, annotations: Iterable[Mapping[str, Any]]
    ) -> tuple[list[tuple[Mapping[str, Any], Box]], list[str]]:
        """The boxes of a picture, and what is wrong with annotations that are none."""
        rows, wrong = [], []
        for row in annotations:
            try:
                rows.append((row, self._box_of(row)))
            except WRONG as error:
                wrong.append(f"annotation {row.get('id', row)!r} is wrong: {_said(error)}")
        return rows, wrong

    def _box_of(self, row: Mapping[str, Any]) -> Box:
        x, y, width, height = bbox_of(row)
        name, class_id = self.category(comparable_id(row["category_id"]))
        confidence = None if row.get("score") is None else finite(row["score"])
        return Box((x, y, x + width, y + height), name, class_id, confidence)

    def _with_identity(
        self, picture: Mapping[str, Any], rows: list[tuple[Mapping[str, Any], Box]]
    ) -> sv.Detections:
        """Stack boxes; ids, categories and crowds ride along, for files that are made of them."""
        found = boxes_to_detections([box for _, box in rows])
        ids = [row.get("id") for row, _ in rows]
        if None not in ids:
            found.data[ANNOTATION_ID] = np.array(ids, None if ids else np.int64)
        if any(_is_crowd(row) for row, _ in rows):
            found.data[IS_CROWD] = np.array([int(_is_crowd(row)) for row, _ in rows])
        categories = [category["row"] for category in self._categories.values()]
        found.metadata[SOURCE] = {"image_id": picture["id"], "categories": categories}
        return found


def is_crowd(found: sv.Detections) -> NDArray[np.bool_]:
    """Say which rows are regions of many objects, (N,)."""
    given = found.data.get(IS_CROWD)
    return np.zeros(len(found), bool) if given is None else np.asarray(given).astype(int) == 1


def check_size(says: str, listed: Hw, image_hw: Hw) -> None:
    """Check the size of a picture that a file lists; what is 0 or less is not known.

    Args:
        says: where it is said, the beginning of a message.
        listed: height and width in the file.
        image_hw: those of the picture, upright.

    Raises:
        ValueError: if they differ; EXIF is named where height and width are swapped.
    """
    if min(listed) <= 0 or listed == image_hw:
        return
    (height, width), (high, wide) = listed, image_hw
    hint = ""
    if listed == image_hw[::-1]:
        hint = (
            ", upright as its EXIF orientation says. If the boxes are those of the picture as it "
            "is stored, set 'boxes_frame: stored'"
        )
    raise ValueError(f"{says} is {width}x{height} pixels, the picture is {wide}x{high}{hint}")


def _list_in(data: Mapping[str, Any], name: str) -> list[Any]:
    rows = data[name]
    if not isinstance(rows, list):
        raise TypeError(f"{name} is a {type(rows).__name__}, not a list")
    return rows


def _read_categories(rows: Iterable[Mapping[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Categories by id; ids that are no numbers get some that are free. A wrong one is left out."""
    found: dict[int | str, dict[str, Any]] = {}
    for row in rows:
        try:
            if row["name"] is not None:
                found[comparable_id(row["id"])] = {"name": str(row["name"]), "row": dict(row)}
        except WRONG:
            continue  # an annotation of it says so
    numbers = [whole_id(key) for key in found if isinstance(key, int)]
    free = max(numbers, default=0)
    for key, category in found.items():
        free += isinstance(key, str)
        category["class_id"] = free if isinstance(key, str) else whole_id(key)
    return found


def comparable_id(value: Any) -> int | str:
    """Return an id as it is compared: ``7``, ``7.0`` and ``"7"`` are one.

    Raises:
        TypeError: if it is neither a number nor a text.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"wants a number or a text as id, got {value!r}")
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.lstrip("-").isdecimal() else text
    return int(value) if float(value).is_integer() else str(value)


def _id_of(row: Any, name: str) -> int | str | None:
    try:
        return comparable_id(row[name])
    except WRONG:
        return None


def _size_of(row: Mapping[str, Any]) -> Hw:
    """Height and width that a file lists; 0 for what is not there."""
    height, width = (row.get(name) for name in ("height", "width"))
    try:
        return int(finite(height or 0)), int(finite(width or 0))
    except (TypeError, ValueError):
        return 0, 0


def bbox_of(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Read ``x, y, width, height`` of an annotation, of its segmentation where it has no box.

    Raises:
        ValueError: if it has neither; other errors where they are wrong.
    """
    if row.get("bbox"):
        return _checked_bbox([finite(value) for value in row["bbox"]])
    segmentation = row.get("segmentation")
    if isinstance(segmentation, Mapping):
        return _bbox_of_rle(segmentation)
    if not segmentation:
        raise ValueError("wants a bbox or a segmentation, got neither")
    numbers = np.array([finite(value) for value in _flat(segmentation)])
    if len(numbers) % 2 or not len(numbers):
        raise ValueError(f"wants polygons of x and y in turn, got {len(numbers)} numbers")
    xs, ys = numbers[::2], numbers[1::2]
    x, y = float(xs.min()), float(ys.min())
    return x, y, float(xs.max()) - x, float(ys.max()) - y


def _checked_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    if len(bbox) != 4:
        raise ValueError(f"a bbox wants x, y, width, height, got {len(bbox)} numbers")
    x, y, width, height = bbox
    if min(width, height) < 0:
        raise ValueError(f"a bbox wants x, y, width, height, got a negative size in {bbox}")
    return x, y, width, height


def _flat(polygons: Any) -> Iterator[Any]:
    """The numbers of a ring, of rings, or of rings of points."""
    for one in polygons:
        if isinstance(one, list | tuple):
            yield from _flat(one)
        else:
            yield one


def _bbox_of_rle(coco: Mapping[str, Any]) -> tuple[float, float, float, float]:
    rle = coco_to_rle({**coco, "size": [int(side) for side in coco["size"]]})
    if not rle_area(rle):
        raise ValueError("it has no bbox, and its mask has no pixels to derive one from")
    x0, y0, x1, y1 = rle_to_box_xyxy(rle).tolist()
    return float(x0), float(y0), float(x1 + 1 - x0), float(y1 + 1 - y0)


def _is_crowd(row: Mapping[str, Any]) -> bool:
    return row.get("iscrowd") in (1, "1", True)


def _said(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)

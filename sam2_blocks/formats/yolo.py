"""YOLO label files, a text a picture, written; `yolo_lines` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import supervision as sv

from sam2_blocks.errors import did_you_mean
from sam2_blocks.formats.coco_boxes import is_crowd
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.outlines import painted_outlines
from sam2_blocks.masks.rle import rle_area, rle_to_box_xyxy
from sam2_blocks.values import Hw, Rle

Shape = Literal["polygon", "box"]
NumberOf = Callable[[int], int]
"""``number_of(row)``: the class number of a row of detections."""


def detections_to_yolo(
    found: sv.Detections,
    image_hw: Hw,
    *,
    number_of: NumberOf,
    shape: Shape = "polygon",
    tolerance_px: float = 0.0,
) -> str:
    """Write the masks of one picture: a line a mask, its class and its outline or box in 0..1.

    Outlines run through the border pixels, which readers paint, too. Holes and further parts are
    joined to one outline; a mask without pixels gets no line, and neither does a crowd, which YOLO
    has no word for.

    Args:
        found: detections with masks.
        image_hw: size of the picture.
        number_of: see `NumberOf`.
        shape: the outline, or the tight box of the mask.
        tolerance_px: how far outlines may be from the mask's, pixels.

    Raises:
        ValueError: if there are no masks, or they are not of the picture's size.
    """
    crowds = is_crowd(found)
    height, width = image_hw
    lines = []
    for index, rle in enumerate(to_rles(found, image_hw)):
        if crowds[index] or not rle_area(rle):
            continue
        for numbers in _numbers(rle, shape, tolerance_px):
            sides = (width, height) * (len(numbers) // 2)
            shares = (number / side for number, side in zip(numbers, sides, strict=True))
            lines.append(f"{number_of(index)} {' '.join(f'{share:.6g}' for share in shares)}\n")
    return "".join(lines)


def _numbers(rle: Rle, shape: Shape, tolerance_px: float) -> Iterator[list[float]]:
    """Outlines, or centre and size of the box, in pixels."""
    if shape == "box":
        x0, y0, x1, y1 = rle_to_box_xyxy(rle).tolist()
        width, height = x1 + 1 - x0, y1 + 1 - y0
        yield [x0 + width / 2, y0 + height / 2, width, height]
        return
    rings = painted_outlines(rle, tolerance_px=tolerance_px, multipolygon_policy="bridge")
    for ring in rings:
        yield ring.ravel().tolist()


class ClassNumbers:
    """Class numbers of a data set, 0 to n - 1, and its names.

    With ``classes`` their places count. Else a new name gets the next number; names that `settle`
    knows the class ids of are put in the order of these, once all are known.

    Args:
        classes: names by number, if somebody chose them.
        known: those of an earlier run, by number; they keep their places.
    """

    def __init__(self, classes: Sequence[str] = (), known: Sequence[str] = ()) -> None:
        self._fixed = bool(classes)
        self._kept = len(known)
        self.names = list(classes or known)
        self._ids: dict[str, set[int | None]] = {}

    def number(self, name: str, class_id: int | None) -> int:
        """Return the number of a class.

        Raises:
            ValueError: if ``classes`` does not list it.
        """
        if name not in self.names:
            if self._fixed:
                hint = did_you_mean(name, self.names)
                raise ValueError(f"is a {name!r}, which 'classes' does not list.{hint}")
            self.names.append(name)
        self._ids.setdefault(name, set()).add(class_id)
        return self.names.index(name)

    def note(self, categories: Sequence[Mapping[str, object]]) -> None:
        """Take in all classes of a COCO file that boxes came from, also those without a box."""
        for row in categories:
            number = row["id"]
            if not self._fixed and isinstance(number, int):
                self.number(str(row["name"]), number)

    def settle(self) -> dict[int, int]:
        """Put names in the order of their class ids, if each has its own: new numbers by old."""
        ids = [self._ids.get(name, {None}) for name in self.names]
        single = [next(iter(found)) if len(found) == 1 else None for found in ids]
        known = [one for one in single if one is not None]
        if self._fixed or self._kept or len(set(known)) < len(self.names):
            return {}
        order = sorted(range(len(known)), key=lambda number: known[number])
        self.names = [self.names[number] for number in order]
        return {old: new for new, old in enumerate(order) if old != new}


def renumber(text: str, numbers: Mapping[int, int]) -> str:
    """Give the classes in a label file new numbers."""
    lines = (line.partition(" ") for line in text.splitlines())
    return "".join(f"{numbers.get(int(n), int(n))}{space}{rest}\n" for n, space, rest in lines)


def data_yaml(names: Sequence[str]) -> str:
    """Write the classes of a data set as Ultralytics and others read them."""
    listed = "".join(
        f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(names)
    )
    return f"nc: {len(names)}\nnames:\n{listed}" if names else "nc: 0\nnames: []\n"

"""YOLO label files, a text a picture, written; `yolo_lines` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import supervision as sv

from sam2_blocks.errors import did_you_mean
from sam2_blocks.files.reading import read_text
from sam2_blocks.formats.coco_boxes import is_crowd
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.outlines import painted_outlines
from sam2_blocks.masks.rle import rle_area, rle_to_box_xyxy
from sam2_blocks.values import Hw, Rle

Shape = Literal["polygon", "box"]
NumberOf = Callable[[int], int]
"""``number_of(row)``: the class number of a row of detections."""

NOTE = "# written by sam2_blocks; class ids and listed names, for --resume: "


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
            lines.append(f"{number_of(index)} {' '.join(map(_decimal, shares))}\n")
    return "".join(lines)


def _decimal(share: float) -> str:
    """Six digits, never as ``1e-05``, which not all readers take for a number."""
    text = f"{share:.6g}"
    return np.format_float_positional(float(text)) if "e" in text else text


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


@dataclass(frozen=True)
class KnownClasses:
    """Classes of a data set that a run has begun.

    Attributes:
        ids: by name, in the order of their numbers, the class ids that masks came with.
        listed: names that stay without a mask, since a file of boxes lists them.
        moving: whether label files with other numbers are ready to take the place of the old ones.
    """

    ids: Mapping[str, Collection[int]] = field(default_factory=dict)
    listed: Collection[str] = ()
    moving: bool = False


class ClassNumbers:
    """Class numbers of a data set, 0 to n - 1, and its names.

    With ``classes`` their places count. Else a new name gets the next number, and `settle` puts
    them into an order that does not depend on which picture came first.

    Args:
        classes: names by number, if somebody chose them.
        known: those of an earlier run, by number.
    """

    def __init__(self, classes: Sequence[str] = (), known: KnownClasses | None = None) -> None:
        self._fixed = bool(classes)
        known = known or KnownClasses()
        self.names = list(classes or known.ids)
        self._ids = {name: set(ids) for name, ids in known.ids.items()}
        self._listed = set(known.listed)
        self._used: set[int] = set()

    @property
    def known(self) -> KnownClasses | None:
        """What a run that goes on with this one has to know, where nobody chose the classes."""
        if self._fixed:
            return None
        ids = {name: sorted(self._ids.get(name, ())) for name in self.names}
        return KnownClasses(ids, sorted(self._listed))

    def number(self, name: str, class_id: int | None) -> int:
        """Return the number of the class of a mask, giving new names the next one.

        Args:
            name: of the class.
            class_id: what its detector calls it by, if anything; numbers follow these ids at the
                end, if each class has one.

        Raises:
            ValueError: if ``classes`` does not list it.
        """
        number = self._number(name, class_id)
        self._used.add(number)
        return number

    def note(self, categories: Sequence[Mapping[str, object]]) -> None:
        """Take in all classes of a COCO file that boxes came from, also those without a box."""
        for row in categories:
            number = row["id"]
            if not self._fixed and isinstance(number, int):
                self._listed.add(str(row["name"]))
                self._number(str(row["name"]), number)

    def settle(self, used: Collection[int] = ()) -> dict[int, int]:
        """Leave out names that nothing has any more, and put the others in order.

        It is that of their class ids if each has one of its own, else of the alphabet.

        Args:
            used: numbers in label files that stay as an earlier run wrote them.

        Returns:
            New numbers by old, where they differ.
        """
        if self._fixed:
            return {}
        used = self._used.union(used)
        left = [n for n, name in enumerate(self.names) if n in used or name in self._listed]
        ids = [self._ids.get(self.names[number], set()) for number in left]
        single = {next(iter(found)) for found in ids if len(found) == 1}
        if len(single) == len(left):
            left.sort(key=lambda number: min(self._ids[self.names[number]]))
        else:
            left.sort(key=lambda number: self.names[number])
        self.names = [self.names[number] for number in left]
        self._used = set(range(len(left)))
        return {old: new for new, old in enumerate(left) if old != new}

    def _number(self, name: str, class_id: int | None) -> int:
        if name not in self.names:
            if self._fixed:
                hint = did_you_mean(name, self.names)
                raise ValueError(f"is a {name!r}, which 'classes' does not list.{hint}")
            self.names.append(name)
        if class_id is not None:
            self._ids.setdefault(name, set()).add(class_id)
        return self.names.index(name)


def numbers_in(text: str) -> set[int]:
    """The classes in a label file."""
    return {int(line.partition(" ")[0]) for line in text.splitlines()}


def renumber(text: str, numbers: Mapping[int, int]) -> str:
    """Give the classes in a label file new numbers.

    Args:
        text: of the file, one object a line.
        numbers: new numbers by old, where they differ.
    """
    lines = (line.partition(" ") for line in text.splitlines())
    return "".join(f"{numbers.get(int(n), int(n))}{space}{rest}\n" for n, space, rest in lines)


def data_yaml(names: Sequence[str], known: KnownClasses | None = None) -> str:
    """Write the classes of a data set as Ultralytics and others read them.

    Args:
        names: by number.
        known: what `read_known` shall find, in a comment.
    """
    listed = "".join(
        f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(names)
    )
    note = f"{NOTE}{json.dumps([known.ids, known.listed, known.moving])}\n" if known else ""
    return f"{note}nc: {len(names)}\nnames:\n{listed}" if names else f"{note}nc: 0\nnames: []\n"


def read_known(file: Path) -> KnownClasses | None:
    """Read what a run noted of its classes; None if it noted nothing.

    Raises:
        ValueError: if the file cannot be read.
    """
    first, _, _ = read_text(file).partition("\n")
    if not first.startswith(NOTE):
        return None
    try:
        ids, listed, moving = json.loads(first.removeprefix(NOTE))
        known = {str(name): [int(one) for one in found] for name, found in ids.items()}
        return KnownClasses(known, [str(name) for name in listed], bool(moving))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: its first line is not as it was written ({error})") from error

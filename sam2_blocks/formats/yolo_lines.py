"""YOLO label files, a text a picture, as the tools of this field write them.

=============================================  ================================================
``class cx cy w h [conf] [id]``                a box, of a detector or a tracker
``class x y x y x y … [conf] [id]``            an outline; an oriented box is one of 4 corners
``class cx cy w h x y v x y v … [conf] [id]``  a box with keypoints (pose), the box is read
=============================================  ================================================

All but class, id and visibility are shares of the picture, 0 to 1. Some of these have as many
numbers as others. Which is meant is guessed from all lines of that length in the folder, and said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import supervision as sv
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sam2_blocks.errors import FileWarning
from sam2_blocks.files.reading import read_text
from sam2_blocks.formats.rows import Box, boxes_to_detections, settle_wrong, whole_id
from sam2_blocks.masks.crossings import Points, count_crossings, is_tangled
from sam2_blocks.values import Hw

SLACK = 0.01
"""How far a number that shall be in 0..1 may be outside, since tools round; it is clipped."""

Columns = Literal["auto", "box", "track", "polygon", "obb", "pose"]
Line = Sequence[str]

CLASSES = "classes"
"""In ``metadata`` of detections: all classes of the data set, each ``id`` and ``name``."""

CLASS_FILES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
LIKELY_KEYPOINTS = 5
"""Fewer than these, each with how sure a model is of it, may as well be an outline."""

CORNERS_TO_A_CROSSING = 8
"""Points in no order cross themselves more often than once for so many of them."""

ROUNDING = 1e-4
"""Of shares, by those who write few digits."""

LEVELS = 3
"""Folders in which these are looked for: that of a label file, and those it is in."""


@dataclass(frozen=True)
class DataSet:
    """What lies beside label files.

    Attributes:
        classes: names by number.
        keypoint_numbers: how many numbers the keypoints of an object are; 0 if it has none.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    keypoint_numbers: int = 0


@dataclass(frozen=True)
class _Form:
    """What the numbers of a line are.

    Attributes:
        shape: what follows the class.
        tail: what ends the line, ``confidence`` and ``id``.
        guess: how to say that other meanings were possible.
    """

    shape: Literal["box", "outline"]
    tail: tuple[str, ...] = ()
    guess: str = ""


class YoloLabels:
    """Reads the label files of a run; what is guessed is said once for each folder.

    Args:
        columns: what lines are; ``auto`` looks at them.
    """

    def __init__(self, columns: Columns = "auto") -> None:
        self._columns = columns
        self._forms: dict[tuple[Path, int], _Form] = {}

    def load(
        self,
        path: Path,
        image_hw: Hw,
        classes: Sequence[str] = (),
        *,
        skip_wrong: bool = False,
        beside: DataSet | None = None,
    ) -> sv.Detections:
        """Read the boxes of a picture.

        Args:
            path: the text file.
            image_hw: size of the picture.
            classes: class names by number; those of ``beside`` if not given.
            skip_wrong: leave out lines that are wrong, with a warning.
            beside: what is known of the data set; looked for beside the file if not given.

        Raises:
            ValueError: if a line is malformed; the message gives file and line.
        """
        beside = find_data_set(path.parent) if beside is None else beside
        names = dict(enumerate(classes)) or beside.classes
        boxes, wrong = [], []
        for number, text in enumerate(read_text(path).splitlines(), start=1):
            try:
                if (line := text.split()) and not line[0].startswith("#"):
                    form = self._form_of(line, path, beside)
                    boxes.append(_line_to_box(line, form, image_hw, names))
            except (ValueError, OverflowError) as error:
                wrong.append(f"{path}, line {number}: {error}, got {text.strip()!r}")
        settle_wrong(wrong, "lines that are wrong", skip=skip_wrong)
        try:
            found = boxes_to_detections(boxes)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if names:
            found.metadata[CLASSES] = [{"id": n, "name": name} for n, name in names.items()]
        return found

    def _form_of(self, line: Line, path: Path, beside: DataSet) -> _Form:
        if self._columns != "auto":
            return _form_named(self._columns, len(line), beside.keypoint_numbers)
        if beside.keypoint_numbers and len(line) >= 5 + beside.keypoint_numbers:
            return _form_named("pose", len(line), beside.keypoint_numbers)
        usual = _usual_form(len(line))
        rarer = _rarer_forms(len(line))
        if not any(rare.fits(line) for rare in rarer):
            return usual
        key = path.parent, len(line)
        if key not in self._forms:
            lines = _lines_like(path.parent, len(line)) or [line]
            self._forms[key] = next((r.form for r in rarer if r.fits_all(lines)), usual)
            self._say(path.parent, len(line), self._forms[key].guess)
        return self._forms[key]

    def _say(self, folder: Path, length: int, guess: str) -> None:
        if guess:
            text = (
                f"{folder}: lines of {length} numbers are read as {guess}. If they are something "
                "else, say so with 'columns'."
            )
            warnings.warn(text, FileWarning, stacklevel=4)


def find_data_set(folder: Path) -> DataSet:
    """Look for class names and keypoints in ``data.yaml`` or ``classes.txt``, beside or above.

    Raises:
        ValueError: if such a file cannot be read.
    """
    *_, last = data_set_files(folder)
    return read_data_set(last) if last.is_file() else DataSet()


def data_set_files(folder: Path) -> list[Path]:
    """Files that may describe the labels of a folder, up to the first one that is there."""
    files = []
    for above in [folder.absolute(), *folder.absolute().parents][:LEVELS]:
        for name in CLASS_FILES:
            files.append(above / name)
            if files[-1].is_file():
                return files
    return files


@lru_cache(maxsize=64)
def _read_data_set(file: Path, _: int) -> DataSet:
    if file.suffix.lower() not in (".yaml", ".yml"):
        lines = enumerate(line.strip() for line in read_text(file).splitlines())
        return DataSet({number: line for number, line in lines if line})
    try:
        data = YAML(typ="safe", pure=True).load(read_text(file))
    except YAMLError as error:
        raise ValueError(f"{file}: not YAML ({error})") from error
    data = data if isinstance(data, Mapping) else {}
    names = data.get("names") or {}
    try:
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
        points = int(np.prod(data.get("kpt_shape") or 0))
        return DataSet({int(number): str(name) for number, name in pairs}, points)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: 'names' wants a list or numbers and names, got {names}"
        ) from error


def read_data_set(file: Path) -> DataSet:
    """Read class names from a text of one a line, or from ``names`` of a YAML file.

    Raises:
        ValueError: if it cannot be read.
    """
    return _read_data_set(file, file.stat().st_mtime_ns if file.exists() else 0)


def _form_named(columns: Columns, length: int, keypoint_numbers: int) -> _Form:
    """The form that somebody named, or a data set says, for lines of a length."""
    tails: dict[int, tuple[str, ...]] = {}
    shape: Literal["box", "outline"] = "outline"
    if columns == "box":
        shape, tails = "box", {5: (), 6: ("confidence",)}
    elif columns == "track" and length in (6, 7):
        shape, tails = "box", {6: ("id",), 7: ("confidence", "id")}
    elif columns == "track" and length > 7:
        tails = {length: ("confidence", "id") if length % 2 else ("id",)}
    elif columns == "obb":
        tails = {9: (), 10: ("confidence",), 11: ("confidence", "id")}
    elif columns == "pose" and length > 5:
        more = length - 5 - keypoint_numbers if keypoint_numbers else 0
        known = {0: (), 1: ("confidence",), 2: ("confidence", "id")}
        shape, tails = "box", {length: known[more]} if more in known else {}
    elif columns == "polygon" and length >= 7:
        tails = {length: () if length % 2 else ("confidence",)}
    if length not in tails:
        raise ValueError(f"{length} numbers are no line of 'columns: {columns}'")
    return _Form(shape, tails[length])


def _usual_form(length: int) -> _Form:
    """What a line of a length is, if nothing speaks against it."""
    if length < 5:
        raise ValueError("wants a class and 4 numbers of a box, or 6 and more of an outline")
    if length <= 6:
        return _Form("box", ("confidence",) * (length - 5))
    return _Form("outline", () if length % 2 else ("confidence",))


class _Rare(NamedTuple):
    """A form that lines may have instead, if all of their length in a folder fit it.

    Attributes:
        fits: whether a line may have this form.
        form: what it is.
        fits_any: of all lines, one at least must fit this, too.
    """

    fits: Callable[[Line], bool]
    form: _Form
    fits_any: Callable[[Line], bool]

    def fits_all(self, lines: Sequence[Line]) -> bool:
        return all(map(self.fits, lines)) and any(map(self.fits_any, lines))


def _rarer_forms(length: int) -> list[_Rare]:
    """Forms that a line of a length may have besides the usual one."""
    if length == 6:
        return [_Rare(_ends_whole, _Form("box", ("id",), "class, box and track id"), _is_no_share)]
    if length == 7:
        form = _Form("box", ("confidence", "id"), "class, box, confidence and track id")
        return [_Rare(_is_track_box, form, _is_track_box)]
    found = []
    if (length - 5) % 3 == 0 and length > 8:
        form = _Form("box", (), "class, box and keypoints with their visibility")
        found.append(_Rare(_has_keypoints, form, _has_keypoints))
    if tail := _tail_after_keypoints(length):
        form = _Form(
            "box", tail[0], "class, box and keypoints that a model is more or less sure of"
        )
        fits = partial(_has_likely_keypoints, more=len(tail[0]))
        found.append(_Rare(fits, form, fits))
    if length >= 8:
        odd = length % 2 == 1
        form = _Form(
            "outline",
            ("confidence", "id") if odd else ("id",),
            f"class, outline{', confidence' if odd else ''} and track id",
        )
        found.append(_Rare(_ends_whole, form, _is_no_share))
    return found


def _ends_whole(line: Line) -> bool:
    return _is_whole(line[-1])


def _is_no_share(line: Line) -> bool:
    return _number(line[-1]) > 1


def _is_track_box(line: Line) -> bool:
    return _is_share(line[5]) and _is_whole(line[6])


def _has_keypoints(line: Line) -> bool:
    """Whether points with a visibility of 0, 1 or 2 are in a box, save those not seen."""
    cx, cy, width, height, *numbers = map(_number, line[1:])
    points = np.array(numbers).reshape(-1, 3)
    seen = points[points[:, 2] > 0, :2]
    inside = np.abs(seen - (cx, cy)) <= np.array([width, height]) / 2 + SLACK
    return bool(np.isin(points[:, 2], (0, 1, 2)).all() and inside.all())


def _tail_after_keypoints(length: int) -> list[tuple[str, ...]]:
    """What a model's line has after `LIKELY_KEYPOINTS` or more; none if it cannot be one."""
    tails: list[tuple[str, ...]] = [(), ("confidence",), ("confidence", "id")]
    return [
        tail
        for tail in tails
        if (length - 5 - len(tail)) % 3 == 0 and length - 5 - len(tail) >= 3 * LIKELY_KEYPOINTS
    ]


def _has_likely_keypoints(line: Line, *, more: int) -> bool:
    """Whether points, each with how sure it is, 0 to 1, are in a box, save those that are not.

    Many an outline would do. But as one, points in no order cross themselves, again and again.
    """
    cx, cy, width, height, *numbers = map(_number, line[1 : len(line) - more])
    points = np.array(numbers).reshape(-1, 3)
    sure = points[:, 2]
    seen = points[sure >= 0.5, :2]
    inside = np.abs(seen - (cx, cy)) <= np.array([width, height]) / 2 + SLACK
    fits_tail = (more < 1 or _is_share(line[len(line) - more])) and (more < 2 or _ends_whole(line))
    fits = len(seen) and ((sure >= 0) & (sure <= 1)).all() and inside.all() and fits_tail
    absent = (points[:, :2] == 0).all(axis=1) & (sure < 0.5)
    return bool(fits and _has_no_order(_as_outline(line), absent=int(absent.sum())))


def _has_no_order(ring: Points, *, absent: int) -> bool:
    """Whether a ring is that of points in no order, so many of which are at 0, 0 and not there.

    An outline may well touch itself, where a slit to a hole is closed by rounding or had no width,
    and one drawn by hand may cross itself somewhere.
    """
    often = max(1, len(ring) // CORNERS_TO_A_CROSSING)
    if count_crossings(ring, by=ROUNDING) >= often:
        return True
    return absent >= 2 and is_tangled(ring)


def _as_outline(line: Line) -> Points:
    """The numbers of a line as those of an outline, (P, 2)."""
    numbers = np.array([*map(_number, line[1:])])
    return numbers[: len(numbers) // 2 * 2].reshape(-1, 2)


def _is_whole(text: str) -> bool:
    return text.isdecimal()


def _is_share(text: str) -> bool:
    return 0 <= _number(text) <= 1


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _lines_like(folder: Path, length: int) -> list[Line]:
    """All lines of so many numbers in a folder of label files."""
    files = [path for path in folder.glob("*.[tT][xX][tT]") if path.name not in CLASS_FILES]
    texts = (path.read_text(encoding="utf-8-sig", errors="replace") for path in files)
    lines = (line.split() for text in texts for line in text.splitlines())
    return [line for line in lines if len(line) == length]


def _line_to_box(line: Line, form: _Form, hw: Hw, names: Mapping[int, str]) -> Box:
    numbers = [float(part) for part in line]
    if not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]) or numbers[0] < 0:
        raise ValueError("wants a whole class number, 0 or more, and finite values")
    tail = dict(zip(form.tail, numbers[len(numbers) - len(form.tail) :], strict=True))
    shares = numbers[1 : len(numbers) - len(form.tail)]
    shares = shares[:4] if form.shape == "box" else shares
    confidence = tail.get("confidence")
    if not all(-SLACK <= n <= 1 + SLACK for n in (*shares, confidence or 0)):
        raise ValueError(
            "wants shares of the picture, 0 to 1; are these pixels, or a tracker's id?"
        )
    class_id = whole_id(numbers[0])
    track = tail.get("id")
    return Box(
        _corners(form.shape, np.clip(shares, 0, 1), hw),
        names.get(class_id, str(class_id)),
        class_id,
        confidence,
        None if track is None else whole_id(track),
    )


def _corners(shape: str, shares: Any, hw: Hw) -> tuple[float, float, float, float]:
    """The box in pixels, inside the picture."""
    if shape == "box":
        cx, cy, width, height = shares
        xs, ys = (cx - width / 2, cx + width / 2), (cy - height / 2, cy + height / 2)
    else:
        xs, ys = shares[::2], shares[1::2]
    high, wide = hw
    return (
        float(min(xs) * wide),
        float(min(ys) * high),
        float(max(xs) * wide),
        float(max(ys) * high),
    )

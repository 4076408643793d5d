"""Pipeline outputs → files, by kind."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image as Pil

from sam2_blocks.engine.places import Exporter
from sam2_blocks.errors import as_error
from sam2_blocks.files.atomic import json_text
from sam2_blocks.kinds import LIST_OF, Kind, dump_value, find_kind
from sam2_blocks.values import Image

if TYPE_CHECKING:
    import supervision as sv


def write_image(image: Image, file: BinaryIO) -> None:
    """Write a picture as PNG."""
    Pil.fromarray(image.pixels).save(file, "PNG")


def write_jpeg(image: Image, file: BinaryIO) -> None:
    """Write a picture as JPEG: a tenth of the size, and not exact."""
    Pil.fromarray(image.pixels).save(file, "JPEG", quality=90)


def write_detections(detections: sv.Detections, file: BinaryIO) -> None:
    """Write detections as JSON: boxes, classes, COCO RLE and polygons, one row an object."""
    file.writelines(encode_detections([detections]))


def encode_detections(many: Sequence[sv.Detections]) -> Iterator[bytes]:
    """Make what `write_detections` writes of each; masks are traced together."""
    from sam2_blocks.formats.rows import each_to_rows

    for rows in each_to_rows(many):
        text = ",\n  ".join(map(json_text, rows))
        yield f'{{\n "detections": [\n  {text}\n ]\n}}\n'.encode()


IMAGE = Exporter(".png", write_image)
JPEG = Exporter(".jpg", write_jpeg)
DETECTIONS = Exporter(".json", write_detections, encode_detections)

BUILTIN_EXPORTERS: Mapping[str, Exporter] = {
    "image": IMAGE,
    "object_detection_prediction": DETECTIONS,
    "instance_segmentation_prediction": DETECTIONS,
    "rle_instance_segmentation_prediction": DETECTIONS,
    "keypoint_detection_prediction": DETECTIONS,
}
"""Kinds with files of their own form; all others are JSON, by their `Kind.dump`."""

UNWRITTEN = frozenset({"image_embedding"})
"""Kinds without files, unless somebody registers an exporter: tens of megabytes of JSON each."""


@dataclass(frozen=True)
class OutputFormat:
    """How the values of one kind become files.

    Attributes:
        kind: of the values.
        exporter: writes a file.
        depth: how many lists deep the values are that have a file of their own.
    """

    kind: Kind
    exporter: Exporter
    depth: int = 0

    def files(self, name: str, value: Any) -> Iterator[tuple[str, Callable[[BinaryIO], None]]]:
        """Name the files of a value, and how each is written.

        Elements of lists are numbered: ``crops/000.png``. None is an element that is not there.

        Args:
            name: of the output.
            value: of the kind.
        """
        for path, one in _elements(name, value, self.depth):
            yield f"{path}{self.exporter.suffix}", partial(self.exporter.write, one)

    def takes_many(self) -> bool:
        """Whether what is written of several values can be made together."""
        return self.exporter.encode_each is not None and not self.depth

    def found(self, folder: Path, name: str) -> Iterator[Path]:
        """List the files in an item's folder that may be those of an output.

        Args:
            folder: of the item.
            name: of the output.

        Yields:
            Paths. Those of numbered elements exist; that of a single value may not.
        """
        if not self.depth:
            yield folder / f"{name}{self.exporter.suffix}"
        numbered = "/".join([r"\d{3,}"] * self.depth) + re.escape(self.exporter.suffix)
        for path in (folder / name).rglob(f"*{self.exporter.suffix}") if self.depth else ():
            if re.fullmatch(numbered, path.relative_to(folder / name).as_posix()):
                yield path


class Together:
    """The contents of files of many values, made together as far as they can be.

    Args:
        values: with their formats, in the order in which they will be written.
    """

    def __init__(self, values: Iterable[tuple[OutputFormat, Any]]) -> None:
        of: dict[Exporter, list[Any]] = defaultdict(list)
        for form, value in values:
            if form.takes_many():
                of[form.exporter].append(value)
        self._made = {
            exporter: _make_each(exporter, given) for exporter, given in of.items() if given[1:]
        }

    def files(
        self, form: OutputFormat, name: str, value: Any
    ) -> Iterator[tuple[str, Callable[[BinaryIO], None]]]:
        """Name the files of a value, as `OutputFormat.files` does."""
        made = self._made.get(form.exporter) if form.takes_many() else None
        for path, write in form.files(name, value):
            yield path, write if made is None else partial(_write_made, made, value, write)


def _make_each(exporter: Exporter, values: Sequence[Any]) -> Iterator[tuple[Any, bytes]]:
    """Values and what their files hold; what is wrong with one is said when it is its turn."""
    assert exporter.encode_each is not None
    yield from zip(values, exporter.encode_each(values), strict=False)


def _write_made(
    made: Iterator[tuple[Any, bytes]],
    value: Any,
    write: Callable[[BinaryIO], None],
    file: BinaryIO,
) -> None:
    """Write what was made of a value with others, or, where one of these is wrong, by itself."""
    try:
        content = next(content for given, content in made if given is value)
    except BaseException as error:  # a plugin's value may fail in any way; another one's failed
        as_error(error)
        write(file)
    else:
        file.write(content)


def find_formats(
    names: Iterable[str], kinds: Mapping[str, Kind], exporters: Mapping[str, Exporter]
) -> tuple[OutputFormat, ...]:
    """Find how an output is written; nothing where none of its kinds has a file.

    Args:
        names: of the output's kinds.
        kinds: all that there are.
        exporters: of kinds with files of their own form.
    """
    found = (_find_format(name, kinds, exporters) for name in names)
    return tuple(one for one in found if one is not None)


def _find_format(
    name: str, kinds: Mapping[str, Kind], exporters: Mapping[str, Exporter]
) -> OutputFormat | None:
    kind = find_kind(name, kinds)
    if kind is None:
        return None
    depth = 0
    while name not in exporters and name.startswith(LIST_OF):
        name, depth = name.removeprefix(LIST_OF), depth + 1
    exporter = exporters.get(name)
    if exporter is not None and not (depth and exporter is DETECTIONS):
        return OutputFormat(kind, exporter, depth)
    return None if name in UNWRITTEN else OutputFormat(kind, json_exporter(kind))


def choose_format(value: Any, formats: Sequence[OutputFormat]) -> OutputFormat:
    """The format of the first kind that a value fits; the last one where it fits none."""
    for one in formats[:-1]:
        try:
            one.kind.check(value)
        except BaseException as error:  # a plugin's kind may fail in any way
            as_error(error)
            continue
        return one
    return formats[-1]


def json_exporter(kind: Kind) -> Exporter:
    """Write values of a kind as JSON, as it dumps them."""

    def write(value: Any, file: BinaryIO) -> None:
        file.write(f"{json_text(dump_value(value, [kind]), indent=1)}\n".encode())

    return Exporter(".json", write)


def _elements(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == 0:
        yield path, value
        return
    for index, one in enumerate(value):
        if one is not None:
            yield from _elements(f"{path}/{index:03d}", one, depth - 1)

"""COCO annotation files → items: their pictures, with their boxes."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import supervision as sv

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.files.reading import read_json
from sam2_blocks.formats.coco_boxes import CocoBoxes
from sam2_blocks.runs.sources.addresses import join, read_picture, stamp_of
from sam2_blocks.values import Image

BOXES = "object_detection_prediction"


class CocoItems:
    """The pictures that a COCO file lists, each an item called by its ``file_name``.

    Boxes go to the one input of the pipeline that takes boxes and is not set; those of a file that
    came from COCO keep its ids and categories. Pictures are relative to the file's folder.

    Args:
        path: the JSON file.
        request: what they are for.

    Attributes:
        identity: the file, absolute; see `Source`.

    Raises:
        UsageError: if it is not COCO, lists no picture, or the pipeline has several inputs for its
            boxes.
        PipelineError: if the pipeline has not exactly one input that pictures can go to.
    """

    alone = False

    def __init__(self, path: Path, request: RunRequest) -> None:
        self.identity = str(path.absolute())
        self._path = str(path)
        self._folder = str(path.parent)
        self._input = request.image_input
        self._boxes_input = _boxes_input(path, request)
        self._request = request
        try:
            content = read_json(path)
            self._boxes = CocoBoxes(path, content)
            self._names = [str(row["file_name"]) for row in content["images"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{error}") from error
        if not self._names:
            raise UsageError(f"{path}: lists no picture.")
        self._stamp = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self._names)

    @property
    def notes(self) -> list[str]:
        """Whether the boxes have no place to go."""
        if self._boxes_input is not None:
            return []
        return ["the pipeline has no free input for the boxes of the COCO file; they are not used"]

    def items(self) -> Iterator[Item]:
        """List the pictures; each is read when its batch comes."""
        for name in self._names:
            address = join(self._folder, name)
            named_in = self._path if address != name else ""
            read = functools.partial(read_picture, address, name, self._request, named_in)
            picture = _Once(read)
            inputs: dict[str, Any] = {self._input: picture}
            if self._boxes_input is not None:
                inputs[self._boxes_input] = functools.partial(self._boxes_of, picture)
            stamp = f"{self._stamp} {stamp_of(address)}"
            yield Item(name, inputs, stamp, source=address)

    def _boxes_of(self, picture: Callable[[], Image]) -> sv.Detections:
        return self._boxes.load(picture())


class _Once:
    """Reads a picture the first time it is asked for; two inputs of an item need it."""

    def __init__(self, read: Callable[[], Image]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._image: Image | None = None

    def __call__(self) -> Image:
        with self._lock:
            if self._image is None:
                self._image = self._read()
            return self._image


def open_coco(text: str, request: RunRequest) -> CocoItems | None:
    """Open a COCO file, if a text is the name of one; see `SourceFactory`."""
    path = Path(text)
    if path.suffix.lower() != ".json" or not path.is_file() or not _looks_like_coco(path):
        return None
    return CocoItems(path, request)


def _looks_like_coco(path: Path) -> bool:
    try:
        return '"images"' in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _boxes_input(path: Path, request: RunRequest) -> str | None:
    free = [
        name
        for name, declared in request.pipeline.inputs.items()
        if BOXES in declared.kinds and name not in request.settings
    ]
    if len(free) > 1:
        raise UsageError(
            f"{path}: its boxes could go to the inputs {', '.join(map(repr, free))}; --set the "
            "others, or write a table with a column for each."
        )
    return free[0] if free else None

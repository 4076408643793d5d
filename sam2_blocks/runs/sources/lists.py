"""Lists of paths and URLs, one a line → items."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterator, Sequence

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.sources.addresses import (
    absolute,
    is_remote,
    join,
    open_binary,
    parent_of,
    read_picture,
    stamp_of,
    suffix_of,
)

LIST_SUFFIXES = frozenset({".txt", ".lst"})
STDIN = "-"


class PictureList:
    """The pictures that a list names, one path or URL a line, each called as the line says.

    Paths in a list are relative to its folder; on standard input, to the folder of the program.

    Args:
        address: of the list; ``-`` is standard input, which is read once and kept.
        request: what they are for.

    Attributes:
        identity: the list, absolute; see `Source`.

    Raises:
        UsageError: if it cannot be read, or is empty.
        PipelineError: if the pipeline has not exactly one input that pictures can go to.
    """

    alone = False
    notes: Sequence[str] = ()

    def __init__(self, address: str, request: RunRequest) -> None:
        self._address = address
        self._input = request.image_input  # raises where there is none
        self._request = request
        self._base = "" if address == STDIN else parent_of(address)
        self._kept = _kept_lines(sys.stdin.buffer.read()) if address == STDIN else None
        self.identity = "standard input" if address == STDIN else absolute(address)
        if next(self._lines(), None) is None:
            name = "standard input" if address == STDIN else address
            raise UsageError(f"{name}: the list is empty; give a path or URL a line.")

    @functools.cached_property
    def total(self) -> int:
        """Number of lines with something in them."""
        return sum(1 for _ in self._lines())

    def items(self) -> Iterator[Item]:
        """List the pictures; each is read when its batch comes."""
        for line in self._lines():
            found = join(self._base, line)
            named_in = self._address if found != line else ""
            yield picture_item(line, found, self._request, named_in)

    def _lines(self) -> Iterator[str]:
        if self._kept is not None:
            yield from self._kept
            return
        with (
            open_binary(self._address) as file,
            io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as lines,
        ):
            for line in lines:
                if line.strip():
                    yield line.strip()


def picture_item(name: str, address: str, request: RunRequest, named_in: str = "") -> Item:
    """Make an item of the picture at an address."""
    read = functools.partial(read_picture, address, name, request, named_in)
    return Item(name, {request.image_input: read}, stamp_of(address), source=address)


def open_list(text: str, request: RunRequest) -> PictureList | None:
    """Open a list, if a text is the name of one; see `SourceFactory`."""
    if text == STDIN or (suffix_of(text) in LIST_SUFFIXES and _is_there(text)):
        return PictureList(text, request)
    return None


def _is_there(text: str) -> bool:
    from pathlib import Path

    return is_remote(text) or Path(text).is_file()


def _kept_lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8-sig", "surrogateescape").splitlines()
    return [line.strip() for line in lines if line.strip()]

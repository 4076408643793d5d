"""Files of one JSON value a line, which a program adds to while it runs and reads after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from sam2_blocks.files.atomic import write_text


class JsonLines:
    """Adds values to a file; each is on its way to the disk when `append` returns.

    Args:
        path: the file; what it holds is replaced.
        values: what it holds at first.

    Attributes:
        places: where each of these begins in the file.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, values: Iterable[Any] = ()) -> None:
        lines = [_line(value) for value in values]
        write_text(path, "".join(lines))
        *self.places, self._size = accumulate(map(len, lines), initial=0)
        self._path = path
        self._file = path.open("ab", buffering=0)  # a buffer would keep what could not be written

    def append(self, value: Any) -> int:
        """Add one value that JSON can hold, and return where it begins.

        Raises:
            OSError: if it cannot be written; the file is as it was.
        """
        line, place = _line(value).encode("ascii"), self._size
        try:
            self._write(line)
        except OSError:
            self._file.truncate(place)  # the beginning of a line, which those to come would follow
            raise
        self._size += len(line)
        return place

    def read(self, places: Iterable[int]) -> Iterator[Any]:
        """Read the values that begin at some places, one by one."""
        with self._path.open("rb") as file:
            for place in places:
                file.seek(place)
                yield json.loads(file.readline())

    def close(self) -> None:
        """Add nothing more."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:  # a disk that gets full takes a part
            left = left[self._file.write(left) :]


def read_json_lines(path: Path) -> list[Any]:
    """Read all values but one that a crash tore; none if there is no such file."""
    if not path.exists():
        return []
    values = []
    for line in path.read_text(encoding="ascii", errors="replace").split("\n"):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return values


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"

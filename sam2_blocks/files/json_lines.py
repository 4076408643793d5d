"""Files of one JSON value a line, which a program adds to while it runs and reads after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sam2_blocks.files.atomic import write_text


class JsonLines:
    """Adds values to a file; each is on its way to the disk when `append` returns.

    Args:
        path: the file; what it holds is replaced.
        values: what it holds at first.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, values: Iterable[Any] = ()) -> None:
        write_text(path, "".join(map(_line, values)))
        self._file = path.open("a", encoding="ascii")

    def append(self, value: Any) -> None:
        """Add one value that JSON can hold."""
        self._file.write(_line(value))
        self._file.flush()

    def close(self) -> None:
        """Add nothing more."""
        self._file.close()


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

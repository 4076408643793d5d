"""Which files a run has begun to write for items that are not finished, also if it was killed."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from sam2_blocks.files.atomic import remove_torn, unfinished_path
from sam2_blocks.files.claims import RESERVED, STARTED_FILE
from sam2_blocks.files.json_lines import JsonLines, read_json_lines

MOST_LINES = 4096
"""After so many notes the file is written anew, with those that still count."""


class StartedFiles:
    """Notes in the output folder, one before each file; threads may share it.

    A journal notes an item when all its files are there. Without these notes nobody would know
    whose a file is that was written shortly before a run was killed.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / STARTED_FILE
        self._files: dict[str, list[str]] = defaultdict(list)
        self._count = 0
        self._lines: JsonLines | None = None
        self._lock = threading.Lock()

    def left(self) -> dict[str, list[str]]:
        """Read the files that an earlier run had begun, by item; those of all under ""."""
        found: dict[str, list[str]] = defaultdict(list)
        for note in read_json_lines(self._path):
            match note:
                case [str(item), str(name)]:
                    found[item].append(name)
        return found

    def start(self) -> None:
        """Begin anew, without what was torn when an earlier run ended."""
        names = [name for names in self.left().values() for name in names]
        files = [self._folder / name for name in (*names, *RESERVED)]
        remove_torn([*files, *map(unfinished_path, files)])
        self._lines = JsonLines(self._path)

    def add(self, item: str, name: str) -> None:
        """Note a file, relative to the folder, before it is written."""
        with self._lock:
            if self._lines is None:
                return
            self._files[item].append(name)
            self._lines.append([item, name])
            self._count += 1
            if self._count >= MOST_LINES:
                self._shorten()

    def forget(self, item: str) -> None:
        """Forget the files of an item that is noted elsewhere."""
        with self._lock:
            self._files.pop(item, None)

    def close(self) -> None:
        """Note nothing more; the file goes if nothing in it counts any more."""
        with self._lock:
            if self._lines is None:
                return
            self._lines.close()
            self._lines = None
            if not any(self._files.values()):
                with suppress(OSError):
                    self._path.unlink()

    def _shorten(self) -> None:
        notes = [[item, name] for item, names in self._files.items() for name in names]
        if self._lines:
            self._lines.close()
        self._lines = JsonLines(self._path, notes)
        self._count = len(notes) // 2

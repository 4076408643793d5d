"""What runs have finished in a folder, so that ``run --resume`` goes on where one stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks import __version__
from sam2_blocks.errors import UsageError
from sam2_blocks.json_lines import JsonLines, read_json_lines
from sam2_blocks.pipeline import Pipeline

JOURNAL_FILE = ".finished.jsonl"


class Journal:
    """Notes in the output folder which pictures are finished, and which files hold their results.

    A picture counts as finished while its size and time of change are the same and its files are
    there. One that failed does not. Blocks that write for all pictures when a run ends need one to
    work on: after a crash, or if what they wrote is out of date, one picture more is done again.

    Args:
        folder: the output folder.
        pipeline: what runs; read from a file.
        settings: the values set for this run, ``name=value``.
        resume: go on with what is finished; False does everything again.

    Attributes:
        kept: items that are finished and not done again, once `plan` has run.

    Raises:
        UsageError: if the earlier run was of another pipeline or had other settings, or a block
            would forget what it wrote then.
    """

    def __init__(
        self, folder: Path, pipeline: Pipeline, settings: Sequence[str], *, resume: bool
    ) -> None:
        self.kept: frozenset[str] = frozenset()
        self._folder = folder
        self._run = {
            "version": __version__,
            "pipeline": hashlib.sha256(Path(pipeline.source).read_bytes()).hexdigest(),
            "settings": sorted(settings),
        }
        found: list[dict[str, Any]] = read_json_lines(folder / JOURNAL_FILE) or [self._run]
        earlier, *lines = found
        self._entries: dict[str, dict[str, Any]] = {}
        for line in lines:
            if "item" in line:
                self._entries.pop(line["item"], None)  # so that the last one stays the last
                self._entries[line["item"]] = line
        ended = bool(lines) and "ended" in lines[-1]
        self._end: dict[str, Any] = lines[-1] if ended else {"ended": True, "files": []}
        self._stamps: dict[str, list[int]] = {}
        self._lines: JsonLines | None = None
        if resume and lines:
            _check_same(self._run, earlier, folder)
            _check_blocks(pipeline)
        if not resume:
            self._forget(self._entries)
        elif self._entries and not ended:
            self._forget([next(reversed(self._entries))])

    def plan(self, pictures: Mapping[str, Path]) -> dict[str, Path]:
        """Return the pictures that are not finished, by item id.

        Raises:
            UsageError: if a file with results of finished pictures is gone.
        """
        self._stamps = {name: _stamp(path) for name, path in pictures.items()}
        left = {name: path for name, path in pictures.items() if not self._is_finished(name)}
        again = [name for name in left if "stamp" in self._entries.get(name, {})]
        self._forget(left)
        kept = [name for name, entry in self._entries.items() if "stamp" in entry]
        gone = [file for file in self.earlier_files() if not file.exists()]
        if kept and gone:
            raise UsageError(
                f"{gone[0]}: is gone, and with it what the earlier run found. Put it back, or "
                "start over without --resume."
            )
        more = (
            [name for name in kept if name in pictures][-1:] if again and self._end["files"] else []
        )
        self._forget(more)
        self.kept = frozenset(kept).difference(more)
        return {name: path for name, path in pictures.items() if name in left or name in more}

    def start(self) -> None:
        """Begin to write."""
        end = [self._end] if self.kept else []
        content = [self._run, *self._entries.values(), *end]
        self._lines = JsonLines(self._folder / JOURNAL_FILE, content)

    def earlier_files(self, item: str = "") -> list[Path]:
        """Files that an earlier run wrote for an item, or for all items together."""
        entry = self._entries.get(item, {}) if item else self._end
        return [self._folder / name for name in entry.get("files", ())]

    def add(self, item: str, files: Iterable[Path]) -> None:
        """Note that a picture is finished, and the files that hold its results."""
        self._append({"item": item, "stamp": self._stamps[item], "files": self._names(files)})

    def end(self, files: Iterable[Path]) -> None:
        """Note that the blocks, too, have written what they held, in files for all pictures."""
        self._append({"ended": True, "files": self._names(files)})

    def close(self) -> None:
        """Write nothing more."""
        if self._lines:
            self._lines.close()

    def _forget(self, items: Iterable[str]) -> None:
        """Count items as not finished, but remember their files."""
        for item in items:
            self._entries.get(item, {}).pop("stamp", None)

    def _is_finished(self, item: str) -> bool:
        entry = self._entries.get(item, {})
        return entry.get("stamp") == self._stamps[item] and all(
            file.exists() for file in self.earlier_files(item)
        )

    def _append(self, value: Mapping[str, Any]) -> None:
        if self._lines:
            self._lines.append(value)

    def _names(self, files: Iterable[Path]) -> list[str]:
        return [file.relative_to(self._folder).as_posix() for file in files]


def _check_same(run: Mapping[str, Any], earlier: Mapping[str, Any], folder: Path) -> None:
    differing = [key for key, value in run.items() if earlier.get(key) != value]
    if differing:
        raise UsageError(
            f"{folder}: cannot --resume, because {' and '.join(differing)} changed since the run "
            "that wrote this folder. Choose another --out, or start over without --resume."
        )


def _check_blocks(pipeline: Pipeline) -> None:
    for step in pipeline.steps:
        manifest = step.manifest
        if manifest.file_access == "write" and not manifest.resumable:
            raise UsageError(
                f"cannot --resume: step {step.id!r} writes files, and the manifest of "
                f"{manifest.id} does not say 'resumable: true'. Start over without --resume."
            )


def _stamp(picture: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds."""
    status = picture.stat()
    return [status.st_size, status.st_mtime_ns]

"""What a run has finished, so that ``run --resume`` goes on where an earlier run stopped."""

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
ENDED = {"ended": True}


class Journal:
    """Notes in the output folder which pictures are finished: all their outputs are written.

    A picture counts as finished while its size and time of change are the same and its files are
    there. One that failed does not. After a crash the last one does not either: blocks that write
    for all pictures when a run ends had no chance to, and get it with one picture to work on.

    Args:
        folder: the output folder.
        pipeline: what runs; read from a file.
        settings: the values set for this run, ``name=value``.
        resume: go on with what the folder's journal tells; False starts a new one.

    Attributes:
        resumed: whether there is an earlier run to go on with.

    Raises:
        UsageError: if the earlier run was of another pipeline or had other settings, or a block
            would forget what it wrote then.
    """

    def __init__(
        self, folder: Path, pipeline: Pipeline, settings: Sequence[str], *, resume: bool
    ) -> None:
        self._path = folder / JOURNAL_FILE
        self._run = {
            "version": __version__,
            "pipeline": hashlib.sha256(Path(pipeline.source).read_bytes()).hexdigest(),
            "settings": sorted(settings),
        }
        self._finished: dict[str, dict[str, Any]] = {}
        self._stamps: dict[str, list[int]] = {}
        self._lines: JsonLines | None = None
        lines = read_json_lines(self._path) if resume else []
        self.resumed = bool(lines)
        if lines:
            _check_blocks(pipeline)
            self._take_over(lines)

    def remaining(self, pictures: Mapping[str, Path]) -> dict[str, Path]:
        """Return the pictures that are not finished, by item id."""
        self._stamps = {name: _stamp(path) for name, path in pictures.items()}
        return {name: path for name, path in pictures.items() if not self._is_finished(name)}

    def start(self) -> None:
        """Begin to write."""
        kept = [*self._finished.values(), *[ENDED] * bool(self._finished)]
        self._lines = JsonLines(self._path, [self._run, *kept])

    def add(self, item: str, files: Iterable[Path]) -> None:
        """Note that a picture is finished, and the files that show it."""
        names = [file.relative_to(self._path.parent).as_posix() for file in files]
        self._append({"item": item, "stamp": self._stamps[item], "files": names})

    def end(self) -> None:
        """Note that the blocks, too, have written what they held."""
        self._append(ENDED)

    def close(self) -> None:
        """Write nothing more."""
        if self._lines:
            self._lines.close()

    def _append(self, value: Mapping[str, Any]) -> None:
        if self._lines:
            self._lines.append(value)

    def _take_over(self, lines: Sequence[dict[str, Any]]) -> None:
        earlier, *entries = lines
        differing = [key for key, value in self._run.items() if earlier.get(key) != value]
        if differing:
            raise UsageError(
                f"{self._path.parent}: cannot --resume, because {' and '.join(differing)} changed "
                "since the run that wrote this folder. Choose another --out, or start over without "
                "--resume."
            )
        ended = "ended" in entries[-1] if entries else True
        for entry in entries:
            if "item" in entry:
                self._finished.pop(entry["item"], None)  # so that the last one stays the last
                self._finished[entry["item"]] = entry
        if not ended:
            self._finished.popitem()

    def _is_finished(self, item: str) -> bool:
        entry = self._finished.get(item)
        folder = self._path.parent
        return (
            entry is not None
            and entry["stamp"] == self._stamps[item]
            and all((folder / name).exists() for name in entry["files"])
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

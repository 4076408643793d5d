"""What runs have finished in a folder, so that ``run --resume`` goes on where one stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from sam2_blocks import __version__
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import unfinished_path
from sam2_blocks.files.claims import JOURNAL_FILE
from sam2_blocks.files.json_lines import JsonLines, read_json_lines
from sam2_blocks.language.pipeline import Pipeline


class Entry(BaseModel):
    """One finished picture.

    Attributes:
        item: its id.
        stamp: size in bytes and time of change in nanoseconds; None if it is to be done again.
        files: those that hold its results, relative to the folder.
    """

    item: str
    stamp: tuple[int, int] | None
    files: list[str]


class SharedFiles(BaseModel):
    """The files so far that hold results of all pictures, and which class of block writes each."""

    shared: dict[str, str]


class Journal:
    """Notes in the output folder which pictures are finished, and which files hold their results.

    A picture counts as finished while its size and time of change are the same and its files are
    there; one that failed does not. What a run of another pipeline or on other pictures noted is
    not looked at, and its files are left alone.

    Args:
        folder: the output folder.
        pipeline: what runs; read from a file.
        source: where the pictures come from, as the user wrote it.
        settings: the values set for this run, ``name=value``.
        resume: go on with what is finished; False does everything again.

    Attributes:
        kept: files of the pictures that are finished and not done again, by item; once `plan` has
            run.
        shared: files with results of all pictures that the earlier run wrote, each with the class
            of its block.

    Raises:
        UsageError: if the earlier run was another, or a block would forget what it wrote then.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        source: str,
        settings: Sequence[str],
        *,
        resume: bool,
    ) -> None:
        self.kept: dict[str, list[Path]] = {}
        self.shared: dict[Path, str] = {}
        self._folder = folder
        self._run = _describe(pipeline, source, settings)
        self._resume = resume
        self._entries: dict[str, Entry] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._lines: JsonLines | None = None
        earlier, *notes = read_json_lines(folder / JOURNAL_FILE) or [None]
        if not isinstance(earlier, dict) or earlier.keys() != self._run.keys():
            return  # none, or of somebody else
        differing = [key for key, value in self._run.items() if earlier[key] != value]
        if resume and differing:
            raise UsageError(
                f"{folder}: cannot --resume, because {' and '.join(differing)} changed since the "
                "run that wrote this folder. Choose another --out, or start over without --resume."
            )
        if resume:
            _check_blocks(pipeline)
        if not {"pipeline", "input"}.intersection(differing):
            self._take_over(notes)

    def plan(self, pictures: Mapping[str, Path]) -> dict[str, Path]:
        """Return the pictures that are to be done, by item id.

        Raises:
            UsageError: if a file with results of finished pictures is gone.
        """
        self._stamps = {name: _stamp(path) for name, path in pictures.items()}
        finished = [name for name in pictures if self._resume and self._is_finished(name)]
        self.kept = {name: self.earlier_files(name) for name in finished}
        for path in self.shared:
            if self.kept and not (path.exists() or unfinished_path(path).exists()):
                raise UsageError(
                    f"{path}: is gone, and with it what the earlier run found. Put it back, or "
                    "start over without --resume."
                )
        return {name: path for name, path in pictures.items() if name not in self.kept}

    def start(self) -> None:
        """Begin to write."""
        notes: list[BaseModel] = []
        if self.kept:
            notes.append(self._shared_note(self.shared))
        for name, entry in self._entries.items():
            stamp = entry.stamp if name in self.kept else None
            notes.append(entry.model_copy(update={"stamp": stamp}))
        content = [self._run, *(note.model_dump() for note in notes)]
        self._lines = JsonLines(self._folder / JOURNAL_FILE, content)

    def earlier_files(self, item: str) -> list[Path]:
        """Files that the earlier run wrote for an item."""
        entry = self._entries.get(item)
        return [self._folder / name for name in entry.files] if entry else []

    def add(self, item: str, files: Iterable[Path], *, finished: bool = True) -> None:
        """Note the files that hold a picture's results, and whether it is finished."""
        stamp = self._stamps[item] if finished else None
        self._append(Entry(item=item, stamp=stamp, files=[self._name(file) for file in files]))

    def add_shared(self, shared: Mapping[Path, str]) -> None:
        """Note which files hold results of all pictures, before any of them counts as finished."""
        self._append(self._shared_note(shared))

    def close(self) -> None:
        """Write nothing more."""
        if self._lines:
            self._lines.close()

    def _take_over(self, notes: Iterable[Any]) -> None:
        for note in notes:
            with suppress(ValidationError):  # torn, or of somebody else
                shared = SharedFiles.model_validate(note).shared
                for name in filter(_is_below, shared):
                    self.shared[self._folder / name] = shared[name]
            with suppress(ValidationError):
                entry = Entry.model_validate(note)
                entry.files = list(filter(_is_below, entry.files))
                self._entries[entry.item] = entry

    def _is_finished(self, item: str) -> bool:
        entry = self._entries.get(item)
        return (
            entry is not None
            and entry.stamp == self._stamps[item]
            and all(file.exists() for file in self.earlier_files(item))
        )

    def _append(self, note: BaseModel) -> None:
        if self._lines:
            self._lines.append(note.model_dump())

    def _name(self, file: Path) -> str:
        """A file relative to the folder, links resolved."""
        return Path(os.path.relpath(file.resolve(), self._folder.resolve())).as_posix()

    def _shared_note(self, shared: Mapping[Path, str]) -> SharedFiles:
        return SharedFiles(shared={self._name(file): block for file, block in shared.items()})


def _describe(pipeline: Pipeline, source: str, settings: Sequence[str]) -> dict[str, Any]:
    """What must be the same for a run to go on with another."""
    return {
        "version": __version__,
        "pipeline": hashlib.sha256(Path(pipeline.source).read_bytes()).hexdigest(),
        "input": os.path.abspath(source),
        "settings": dict(pair.split("=", 1) for pair in settings),  # the last of a name counts
    }


def _is_below(name: str) -> bool:
    """Whether a path in a journal stays in its folder; the file may come from anybody."""
    path = PurePosixPath(name)
    return ".." not in path.parts and not path.is_absolute()


def _check_blocks(pipeline: Pipeline) -> None:
    for step in pipeline.steps:
        manifest = step.manifest
        if manifest.file_access == "write" and not manifest.resumable:
            raise UsageError(
                f"cannot --resume: step {step.id!r} writes files, and the manifest of "
                f"{manifest.id} does not say 'resumable: true'. Start over without --resume."
            )


def _stamp(picture: Path) -> tuple[int, int]:
    status = picture.stat()
    return status.st_size, status.st_mtime_ns

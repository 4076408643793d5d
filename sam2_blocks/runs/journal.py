"""What runs have finished in a folder, so that ``run --resume`` goes on where one stopped."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from sam2_blocks import __version__
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import json_text, unfinished_path
from sam2_blocks.files.claims import JOURNAL_FILE
from sam2_blocks.files.json_lines import JsonLines, read_json_lines
from sam2_blocks.files.reading import FileStamps
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.runs.started import StartedFiles


class Entry(BaseModel):
    """One finished item.

    Attributes:
        item: its id.
        stamp: that of the item as it was done; None if it is to be done again.
        files: those that hold its results, relative to the folder.
        reads: other files than the item's own that its results depend on, with their stamps.
    """

    item: str
    stamp: str | None
    files: list[str]
    reads: dict[str, str] = {}


class SharedFiles(BaseModel):
    """The files so far that hold results of all pictures, and which class of block writes each."""

    shared: dict[str, str]


class Journal:
    """Notes in the output folder which items are finished, and which files hold their results.

    An item counts as finished while its stamp and those of what was read for it are the same and
    its files are there; one that failed does not. What a run of another pipeline noted is not
    looked at, and its files are left alone.

    Args:
        folder: the output folder.
        request: what runs.
        identity: of the source, see `Source`.

    Attributes:
        kept: files of the items that are finished and not done again, by item; once `plan` has
            run.
        shared: files with results of all items that the earlier run wrote, each with the class
            of its block.

    Raises:
        UsageError: if the earlier run was another and this one is to go on with it, or was on
            other inputs, or a block would forget what it wrote then.
    """

    def __init__(self, folder: Path, request: RunRequest, identity: str | None) -> None:
        self.kept: dict[str, list[Path]] = {}
        self.shared: dict[Path, str] = {}
        self._folder = folder
        self._run = describe_run(request, identity)
        self._entries: dict[str, Entry] = {}
        self._started = StartedFiles(folder)
        self._stamps = FileStamps()
        self._lines: JsonLines | None = None
        if request.resume:
            check_resumable(request.pipeline)
        earlier, *notes = read_json_lines(folder / JOURNAL_FILE) or [None]
        if not isinstance(earlier, dict) or earlier.keys() != self._run.keys():
            return  # none, or of somebody else
        differing = [key for key, value in self._run.items() if earlier[key] != value]
        if request.resume and differing:
            raise UsageError(
                f"{folder}: cannot --resume, because {' and '.join(differing)} changed since the "
                "run that wrote this folder. Choose another --out, or start over without --resume."
            )
        if "input" in differing:
            raise UsageError(
                f"{folder}: holds results of another input, {_shown(earlier['input'])}, and two "
                "runs are not mixed. Choose another --out, or delete that folder first."
            )
        if "pipeline" not in differing:
            self._take_over(notes)

    def plan(self, stamps: Mapping[str, str]) -> None:
        """Find out which items are finished.

        Args:
            stamps: those of all items, by id.

        Raises:
            UsageError: if a file with results of finished items is gone.
        """
        for name, stamp in stamps.items():
            if self._is_finished(name, stamp):
                self.kept[name] = self.earlier_files(name)
        for path in self.shared:
            if self.kept and not (path.exists() or unfinished_path(path).exists()):
                raise UsageError(
                    f"{path}: is gone, and with it what the earlier run found. Put it back, or "
                    "start over without --resume."
                )

    def start(self) -> None:
        """Begin to write."""
        notes: list[BaseModel] = []
        if self.kept:
            notes.append(self._shared_note(self.shared))
        for name, entry in self._entries.items():
            if name in self.kept:
                notes.append(entry)
            elif entry.files:
                notes.append(entry.model_copy(update={"stamp": None}))
        content = [self._run, *(note.model_dump() for note in notes)]
        self._lines = JsonLines(self._folder / JOURNAL_FILE, content)
        self._started.start()

    def begin_file(self, item: str, file: Path) -> None:
        """Note a file before it is written.

        Args:
            item: whose results it holds; empty for a file of all items.
            file: below the folder of the run.
        """
        self._started.add(item, self._name(file))

    def earlier_files(self, item: str) -> list[Path]:
        """Files that the earlier run wrote for an item."""
        entry = self._entries.get(item)
        return [self._folder / name for name in entry.files] if entry else []

    def gone(self, seen: Collection[str]) -> list[Path]:
        """List files that the earlier run wrote for items that the source no longer has.

        Args:
            seen: ids of the items that it has.
        """
        lost = [name for name in self._entries if name not in seen]
        return [file for name in lost for file in self.earlier_files(name)]

    def forget(self, seen: Collection[str]) -> None:
        """Note that the run is complete, and that items which the source no longer has are gone.

        Args:
            seen: ids of the items that it has.
        """
        self._started.forget("")
        for name in self._entries:
            if name not in seen:
                self._append(Entry(item=name, stamp=None, files=[]))

    def add(
        self,
        item: str,
        stamp: str,
        files: Iterable[Path],
        *,
        reads: Mapping[str, str] | None = None,
        finished: bool = True,
    ) -> None:
        """Note the files that hold an item's results, and whether it is finished.

        Args:
            item: its id.
            stamp: of what it stands for; an item without one never counts as finished.
            files: with its results.
            reads: stamps of further files that the results depend on, by path.
            finished: whether a later run may skip it.
        """
        noted = stamp if finished and stamp else None
        names = [self._name(file) for file in files]
        self._append(Entry(item=item, stamp=noted, files=names, reads=dict(reads or {})))
        self._started.forget(item)

    def add_shared(self, shared: Mapping[Path, str]) -> None:
        """Note which files hold results of all pictures, before any of them counts as finished."""
        self._append(self._shared_note(shared))

    def close(self) -> None:
        """Write nothing more."""
        if self._lines:
            self._lines.close()
        self._started.close()

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
        for item, names in self._started.left().items():
            entry = self._entries.setdefault(item, Entry(item=item, stamp=None, files=[]))
            new = [name for name in names if name not in entry.files and _is_below(name)]
            if item and new:
                self._entries[item] = Entry(item=item, stamp=None, files=[*entry.files, *new])

    def _is_finished(self, item: str, stamp: str) -> bool:
        entry = self._entries.get(item)
        return (
            entry is not None
            and bool(stamp)
            and entry.stamp == stamp
            and all(file.exists() for file in self.earlier_files(item))
            and self._stamps.are(entry.reads.items())
        )

    def _append(self, note: BaseModel) -> None:
        if self._lines:
            self._lines.append(note.model_dump())

    def _name(self, file: Path) -> str:
        """A file relative to the folder, links resolved."""
        return Path(os.path.relpath(file.resolve(), self._root)).as_posix()

    @functools.cached_property
    def _root(self) -> Path:
        """The folder with links resolved, which asks the disk about each part of its path."""
        return self._folder.resolve()

    def _shared_note(self, shared: Mapping[Path, str]) -> SharedFiles:
        return SharedFiles(shared={self._name(file): block for file, block in shared.items()})


def describe_run(request: RunRequest, identity: str | None) -> dict[str, Any]:
    """Describe a run by all that must be the same for a later run to go on with it.

    Args:
        request: the run.
        identity: of its source, see `Source.identity`.

    Returns:
        Plain data, the first line of the journal.
    """
    return {
        "version": __version__,
        "pipeline": request.digest,
        "input": identity,
        "settings": json.loads(json_text(request.settings)),
        "names": request.names,
        "pictures": request.pictures,
        "value_range": list(request.value_range) if request.value_range else None,
    }


def _shown(identity: Any) -> str:
    text = str(identity)
    return repr(text if len(text) < 200 else f"{text[:200]}…")


def _is_below(name: str) -> bool:
    """Whether a path in a journal stays in its folder; the file may come from anybody."""
    path = PurePosixPath(name)
    return ".." not in path.parts and not path.is_absolute()


def check_resumable(pipeline: Pipeline) -> None:
    """Refuse blocks that would forget what they wrote before.

    Raises:
        UsageError: if there is one.
    """
    for step in pipeline.steps:
        manifest = step.manifest
        if manifest.file_access == "write" and not manifest.resumable:
            raise UsageError(
                f"cannot --resume: step {step.id!r} writes files, and the manifest of "
                f"{manifest.id} does not say 'resumable: true'. Start over without --resume."
            )

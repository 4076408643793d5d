"""What an earlier run left in a folder: what is kept, what is replaced, what is removed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sam2_blocks.engine.places import RunRequest, Source
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.files.claims import JOURNAL_FILE, OutputFiles
from sam2_blocks.runs.journal import Journal


class EarlierRun:
    """Makes a folder look as if this run alone had written there.

    What an earlier run of the same pipeline on the same inputs wrote of an item goes where this
    run has nothing to put in its place: a result never stands beside the error that says there is
    none, and what belongs to items that are none any more is removed when the run is complete.

    Args:
        folder: of the run.
        files: those that blocks write.
        journal: of the folder; None for a picture alone whose files have always the same names.
        stamps: of the items, by id.

    Attributes:
        files: as given.
    """

    def __init__(
        self,
        folder: Path,
        files: OutputFiles,
        journal: Journal | None,
        stamps: dict[str, str],
    ) -> None:
        self.files = files
        self._folder = folder
        self._journal = journal
        self._stamps = stamps
        self._shared: dict[Path, str] = {}
        self._written: set[str] = set()
        files.on_claim = self.begins
        files.keeps_reads = journal is not None

    @property
    def kept(self) -> Collection[str]:
        """Ids of the items that are finished and not run again."""
        return self._journal.kept if self._journal else ()

    @property
    def listed(self) -> Collection[str]:
        """Ids of all items, as far as they are known before they come."""
        return self._stamps.keys()

    def start(self) -> None:
        """Begin to note what is finished."""
        if self._journal:
            self._journal.start()
        else:  # what a journal there says is not true any more
            (self._folder / JOURNAL_FILE).unlink(missing_ok=True)

    def begins(self, item: str, file: Path) -> None:
        """Note a file before it is written, so that it is known even if this run is killed.

        Args:
            item: whose results it holds; empty for a file of all items.
            file: below the folder of the run.
        """
        if self._journal and (not item or item in self._stamps):  # not a part of an item
            self._journal.begin_file(item, file)

    def note(
        self, item: str, written: Sequence[Path], *, failed: bool, known: Iterable[Path]
    ) -> None:
        """Note an item that was run, and remove what an earlier run wrote of it.

        Args:
            item: its id.
            written: its outputs.
            failed: whether it is to be run again.
            known: the outputs that it may have.
        """
        old = {*known, *(self._journal.earlier_files(item) if self._journal else ())}
        self._written.update(map(os.path.realpath, written))
        self._remove(old)
        if self._journal is None:
            return
        stamp = self._stamps.setdefault(item, "")
        shared = self.files.of_all()
        if shared != self._shared:
            self._shared = shared
            self._journal.add_shared(shared)
        files = [*written, *self.files.of_item(item)]
        reads = self.files.read_for(item)
        self.files.forget_item(item)
        self._journal.add(item, stamp, files, reads=reads, finished=not failed)

    def finish(self) -> None:
        """Remove files of items that there are no more, after every item was run."""
        if self._journal:
            self._remove(self._journal.gone(self._stamps))
            self._journal.forget(self._stamps)
            if not self._journal.kept:
                self._remove(self._journal.shared)

    def close(self) -> None:
        """Note nothing more."""
        if self._journal:
            self._journal.close()

    def _remove(self, old: Iterable[Path]) -> None:
        for path in old:
            needed = os.path.realpath(path) in self._written or self.files.is_needed(path)
            if not needed and path.is_file():
                with suppress(OSError):  # what keeps it there keeps new ones out, too
                    path.unlink()
                self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        with suppress(OSError):  # not empty
            while folder != self._folder and folder.is_relative_to(self._folder):
                folder.rmdir()
                folder = folder.parent


def plan_run(folder: Path, request: RunRequest, source: Source) -> EarlierRun:
    """Read what an earlier run noted in a folder, and decide what is to be done.

    Args:
        folder: of the results.
        request: the run that is about to begin.
        source: its items.

    Raises:
        UsageError: if two items have one id, or the earlier run was another, so that the two would
            be mixed, or this one cannot go on with it.
    """
    if request.resume and (source.alone or source.identity is None):
        raise UsageError(
            "--resume is for folders and globs; run a single picture without it."
            if source.alone
            else "cannot resume: nobody can tell whether these inputs are those of the earlier "
            "run. Give paths, or leave out resume."
        )
    writing = any(step.manifest.file_access == "write" for step in request.pipeline.steps)
    journal = Journal(folder, request, source.identity)
    if source.alone and not writing:
        return EarlierRun(folder, OutputFiles(folder), None, {})
    items = list(source.items()) if source.identity else []
    stamps = {item.id: item.stamp for item in items}
    if len(stamps) < len(items):
        names = Counter(item.id for item in items)
        raise UsageError(two_items(names.most_common(1)[0][0]))
    if not request.resume:
        return EarlierRun(folder, OutputFiles(folder), journal, stamps)
    journal.plan(stamps)
    _forget_broken_groups(journal, items)
    order = {name: place for place, name in enumerate(stamps)}
    files = OutputFiles(folder, kept=journal.kept, shared_before=journal.shared, order=order)
    return EarlierRun(folder, files, journal, stamps)


def two_items(name: str) -> str:
    """Say that two items have one id."""
    return (
        f"two items are called {name!r}; name them apart: in a column 'id' of a table, or run "
        "inputs that hold the same picture into folders of their own."
    )


def _forget_broken_groups(journal: Journal, items: Iterable[Item]) -> None:
    """Keep a group as a whole or not at all: what follows an item depends on it."""
    groups = {item.id: item.group for item in items if item.group}
    broken = {group for name, group in groups.items() if name not in journal.kept}
    for name, group in groups.items():
        if group in broken:
            journal.kept.pop(name, None)

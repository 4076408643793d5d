"""Results of a run → files in the output folder."""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from sam2_blocks.engine.exporters import SUFFIXES
from sam2_blocks.engine.hookspecs import Exporter
from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.runner import ErrorRecord, ItemResult
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import write_text
from sam2_blocks.files.claims import ERRORS_FILE, JOURNAL_FILE, LOCK_FILE, OutputFiles
from sam2_blocks.files.per_picture import relative_path
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.runs.journal import Journal

WRITERS = 2
MAX_WAITING = 8
HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of the folder, not of one item: they end the run."""


class OutputFolder:
    """Writes every output of every item; each file is whole or not there.

    What an earlier run left of an item goes where this run has nothing to put in its place: a
    result never stands beside the error that says there is none. Without a journal, the files of
    blocks and of plugins' exporters stay, whose names are not known then.

    Use as a context manager: files are encoded in threads beside the run, at most `MAX_WAITING`
    items behind it, and all are written when the block ends.

    Args:
        folder: where the files go; made when the first is written.
        pipeline: whose outputs are written.
        plugins: for the exporters.
        nested: give each item a folder of its own, named after its id.
        files: those that blocks write.
        journal: told of every item that is finished, and of the end.

    Attributes:
        errors: of items whose outputs could not be written; complete when the block has ended.

    Raises:
        UsageError: if the folder cannot be made, or an output has the name of the file of errors.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        plugins: Plugins,
        *,
        nested: bool,
        files: OutputFiles,
        journal: Journal | None = None,
    ) -> None:
        self.folder = folder
        self._nested = nested
        self._files = files
        self._journal = journal
        self._shared: dict[Path, str] = {}
        self._exporters = {
            name: _find_exporter(pipeline.kinds_of(selector), plugins)
            for name, selector in pipeline.outputs.items()
        }
        if Path(ERRORS_FILE).stem in self._exporters:
            raise UsageError(
                f"{pipeline.source}: no output may be called {Path(ERRORS_FILE).stem!r}, because "
                f"{ERRORS_FILE} says which pictures failed; give it another name."
            )
        self.errors: list[ErrorRecord] = []
        self._writers = ThreadPoolExecutor(WRITERS, "sam2-blocks-writer")
        self._waiting: deque[tuple[ItemResult, Future[list[Path]]]] = deque()
        self._lock = FileLock(folder / LOCK_FILE)
        if not nested:
            for name, suffix in self._known_files():
                files.reserve(f"{name}{suffix}", self)

    def __enter__(self) -> OutputFolder:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            (self.folder / ERRORS_FILE).unlink(missing_ok=True)
            if self._journal:
                self._journal.start()
        except Timeout:
            raise UsageError(
                f"{self.folder}: another run is writing there. Wait for it, or choose another "
                "--out."
            ) from None
        except OSError as error:
            self._release()
            where = str(self.folder)
            raise UsageError(f"cannot write to the folder {where!r}: {error}.") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writers.shutdown()
        try:
            with suppress(OSError) if error else nullcontext():
                self._collect(0)
                if self._journal and not error and not self._journal.kept:
                    self._remove(self._journal.shared)
        finally:
            if self._journal:
                self._journal.close()
            self._release()

    @property
    def skipped(self) -> list[str]:
        """Outputs whose kind has no file format, such as embeddings."""
        return [name for name, exporter in self._exporters.items() if exporter is None]

    def submit(self, result: ItemResult) -> None:
        """Write the outputs of one item soon.

        Raises:
            OSError: if the folder takes no more, as an earlier item found out.
        """
        if self._journal is None:  # a single picture: what the journal says is not true any more
            (self.folder / JOURNAL_FILE).unlink(missing_ok=True)
        self._waiting.append((result, self._writers.submit(self.write, result)))
        self._collect(MAX_WAITING)

    def _collect(self, may_wait: int) -> None:
        while self._waiting and (len(self._waiting) > may_wait or self._waiting[0][1].done()):
            result, future = self._waiting.popleft()
            try:
                self._note(result, future.result(), finished=not result.errors)
            except Exception as error:  # a plugin's value or exporter; the other items go on
                if isinstance(error, OSError) and error.errno in HOPELESS:
                    raise
                cause = type(error).__name__
                message = f"cannot be written: {error}"
                self.errors.append(ErrorRecord(result.id, "outputs", "", message, cause))
                self._note(result, (), finished=False)

    def _note(self, result: ItemResult, written: Sequence[Path], *, finished: bool) -> None:
        if self._journal is None:
            return
        shared = self._files.of_all()
        if shared != self._shared:
            self._shared = shared
            self._journal.add_shared(shared)
        files = [*written, *self._files.of_item(result.id)]
        self._journal.add(result.id, files, finished=finished)

    def _known_files(self, but: Collection[str] = ()) -> Iterator[tuple[str, str]]:
        """Outputs, and what our own exporters add to their names."""
        for name, exporter in self._exporters.items():
            for known, suffix in SUFFIXES.items():
                if exporter is known and name not in but:
                    yield name, suffix

    def _release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):  # some systems keep it while it is held
                (self.folder / LOCK_FILE).unlink()
            self._lock.release()

    def write(self, result: ItemResult) -> list[Path]:
        """Write the outputs of one item.

        Returns:
            The files written.

        Raises:
            OSError: if a file cannot be written; it is not there then.
        """
        target = self.folder / relative_path(result.id) if self._nested else self.folder
        written: dict[str, Path] = {}
        failed = bool(result.errors)
        try:
            for name, value in result.outputs.items():
                exporter = self._exporters[name]
                if exporter is not None:
                    path = exporter(value, target / name)
                    if not isinstance(path, Path):
                        raise TypeError(f"its exporter returned {path!r} instead of its Path")
                    written[name] = path
        except Exception:
            failed = True
            raise
        finally:
            old = {target / f"{name}{suffix}" for name, suffix in self._known_files(but=written)}
            if self._journal and failed:
                old.update(self._journal.earlier_files(result.id))
            new = {path.resolve() for path in written.values()}
            self._remove(path for path in old if path.resolve() not in new)
        return list(written.values())

    def _remove(self, old: Iterable[Path]) -> None:
        for path in old:
            if not self._files.is_needed(path):
                with suppress(OSError):  # what keeps it there keeps new ones out, too
                    path.unlink(missing_ok=True)

    def write_errors(self, errors: Sequence[ErrorRecord]) -> Path:
        """Write the error records of the run."""
        rows = [asdict(error) for error in errors]
        return write_text(self.folder / ERRORS_FILE, json.dumps(rows, indent=1) + "\n")


def _find_exporter(kinds: Sequence[str], plugins: Plugins) -> Exporter | None:
    return next((plugins.exporters[kind] for kind in kinds if kind in plugins.exporters), None)

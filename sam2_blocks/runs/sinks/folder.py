"""Results of a run → files in a folder."""

from __future__ import annotations

import errno
import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from contextvars import copy_context
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from sam2_blocks.clock import stage
from sam2_blocks.engine.exporters import (
    IMAGE,
    JPEG,
    OutputFormat,
    Together,
    choose_format,
    find_formats,
)
from sam2_blocks.engine.places import RunRequest, Source
from sam2_blocks.engine.records import ErrorRecord, ItemResult
from sam2_blocks.errors import UsageError, as_error, is_full, message_of
from sam2_blocks.files.atomic import write_atomically, write_text
from sam2_blocks.files.claims import ERRORS_FILE, FLIGHT_FILE, LOCK_FILE, RESERVED, OutputFiles
from sam2_blocks.files.per_picture import relative_path, stem_of
from sam2_blocks.runs.sinks.earlier import EarlierRun, plan_run
from sam2_blocks.runs.stores import LocalStore, Store

WRITERS = 2
CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of a folder that nobody may write to; like those of a full disk they end the run."""

UNUSUAL = re.compile(r"(^|/)\.{0,2}(/|$)")
"""In ids that are not their own relative paths; so may be those that are not `SHORT`."""

SHORT = 63

Written = tuple[list[Path], Exception | None]
"""The files of an item, up to one that could not be written, and why."""


class FolderSink:
    """Writes every output of every item; each file is whole or not there.

    Files are encoded in threads beside the run, at most a micro-batch behind it. What an earlier
    run left there is the business of `EarlierRun`.

    Args:
        folder: where the files go; made when the run begins.
        request: whose outputs are written.

    Raises:
        UsageError: if an output has the name of the file of errors.
    """

    def __init__(self, folder: Path, request: RunRequest) -> None:
        self.folder = folder
        self.failed: list[ErrorRecord] = []
        self._errors: list[tuple[int, ErrorRecord]] = []  # with the place of the item
        self._request = request
        self._formats = _find_formats(request)
        self._alone = False
        self._owners: dict[Path, str] | None = None  # of folders; None where all are checked
        self._earlier: EarlierRun | None = None
        self._lock = FileLock(folder / LOCK_FILE)
        self._writers = ThreadPoolExecutor(WRITERS, "sam2-blocks-writer")
        self._waiting: deque[tuple[ItemResult, int, Future[list[Written]]]] = deque()

    @property
    def files(self) -> OutputFiles:
        """Files that blocks write, in this folder."""
        return self._plan.files

    @property
    def notes(self) -> list[str]:
        """Outputs whose kind has no file format, such as embeddings."""
        return [
            f"output {name!r} has no file format and is not written"
            for name, formats in self._formats.items()
            if not formats
        ]

    @property
    def flight_note(self) -> tuple[Store, str] | None:
        """Where it is noted what is under way; see `Flight`. Nobody resumes a single picture."""
        return None if self._alone else (LocalStore(self.folder), FLIGHT_FILE)

    def begin(self, source: Source) -> Collection[str]:
        """Take the folder for this run alone, and see what an earlier one left; see `Sink`."""
        self._alone = source.alone
        self._take_folder()
        try:
            self._earlier = plan_run(self.folder, self._request, source)
            if source.alone:
                for name in self._names():
                    self.files.reserve(name, self)
            else:
                _check_places(self._earlier.listed, self._request.names)
                self._owners = {} if source.identity is None else None
            (self.folder / ERRORS_FILE).unlink(missing_ok=True)
            self._earlier.start()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        return self._plan.kept

    def write(self, result: ItemResult) -> None:
        """Write the outputs of one item soon; see `Sink`."""
        self.write_all([result])

    def write_all(self, results: Sequence[ItemResult]) -> None:
        """Write the outputs of a micro-batch soon."""
        self._errors += [(_number_of(one), error) for one in results for error in one.errors]
        wrong = [self._why_not(one.id) for one in results]
        written = self._writers.submit(copy_context().run, self._write_all, results, wrong)
        self._waiting.extend((one, place, written) for place, one in enumerate(results))
        self._collect(self._request.batch_size)

    def end(self, *, complete: bool) -> None:
        """Write what is left, and the file of errors; see `Sink`."""
        with ExitStack() as stack:  # from the last one on, also if somebody does not want to wait
            stack.callback(self._write_errors)
            stack.callback(self._release)
            stack.callback(self._plan.close)
            stack.callback(self._note_rest, complete=complete)
            self._writers.shutdown()

    def _note_rest(self, *, complete: bool) -> None:
        with nullcontext() if complete else suppress(OSError):
            self._collect(0)
            if complete:
                self._plan.finish()

    def _write_errors(self) -> None:
        if self._errors:  # in the order of items, also of those that were held back
            rows = [asdict(error) for _, error in sorted(self._errors, key=itemgetter(0))]
            write_text(self.folder / ERRORS_FILE, json.dumps(rows, indent=1) + "\n")

    @property
    def _plan(self) -> EarlierRun:
        if self._earlier is None:
            raise RuntimeError("begin() comes first")
        return self._earlier

    def _take_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.folder}: another run is writing there. Wait for it, or choose another "
                "--out."
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write to the folder {str(self.folder)!r}: {error}.")

    def _release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):  # some systems keep it while it is held
                (self.folder / LOCK_FILE).unlink()
            self._lock.release()

    def _collect(self, may_wait: int) -> None:
        """Note what is written, and wait for what is more than so many items."""
        while self._waiting and (len(self._waiting) > may_wait or self._waiting[0][2].done()):
            result, place, future = self._waiting.popleft()
            written, error = future.result()[place]
            if error and (is_full(error) or _is_closed(error)):
                raise error
            if error:
                cause = type(error).__name__
                message = f"cannot be written: {message_of(error)}"
                self.failed.append(ErrorRecord(result.id, "outputs", "", message, cause))
                self._errors.append((_number_of(result), self.failed[-1]))
            failed = bool(result.errors or error)
            known = [*self._found(self._place(result.id))]
            self._plan.note(result.id, written, failed=failed, known=known)

    @stage("write")
    def _write_all(
        self, results: Sequence[ItemResult], wrong: Sequence[Exception | None]
    ) -> list[Written]:
        """Write the outputs of items; what can be made for all of them at once is."""
        chosen = [
            [
                (name, value, choose_format(value, formats))
                for name, value in result.outputs.items()
                if (formats := self._formats[name])
            ]
            for result in results
        ]
        together = Together((form, value) for outputs in chosen for _, value, form in outputs)
        return [
            ([], error) if error else self._write(result.id, outputs, together)
            for result, outputs, error in zip(results, chosen, wrong, strict=True)
        ]

    def _write(
        self, item: str, outputs: Sequence[tuple[str, Any, OutputFormat]], together: Together
    ) -> Written:
        """Write the outputs of one item, up to one that cannot be written, and say why."""
        written: list[Path] = []
        try:
            for name, value, form in outputs:
                for file, write in together.files(form, name, value):
                    path = self._place(item) / file
                    self._plan.begins(item, path)
                    written.append(write_atomically(path, write))
        except BaseException as error:  # a plugin's value or exporter; the other items go on
            return written, as_error(error)
        return written, None

    def _why_not(self, item: str) -> Exception | None:
        """Refuse an item that would write over a file of the run, or over another item.

        The latter where nobody knew before it came.
        """
        if any(name in item for name in RESERVED) and not self._alone:
            top = next(iter(_place_of(item, self._request.names).parts), "")
            if top in RESERVED:
                return ValueError(f"{top!r} is a file of the run itself; rename the item")
        if self._owners is None:
            return None
        place = self._place(item)
        other = self._owners.setdefault(place, item)
        return None if other == item else ValueError(_two_in_one(other, item, place))

    def _place(self, item: str) -> Path:
        """The folder of an item's outputs."""
        if self._alone:
            return self.folder
        return self.folder / _place_of(item, self._request.names)

    def _names(self) -> Iterator[str]:
        """Files and folders that outputs have."""
        for name, formats in self._formats.items():
            yield from {name if one.depth else f"{name}{one.exporter.suffix}" for one in formats}

    def _found(self, place: Path) -> Iterator[Path]:
        """Files in an item's folder that are, or may be, its outputs."""
        for name, formats in self._formats.items():
            for one in formats:
                yield from one.found(place, name)


def _is_closed(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in CLOSED


def _number_of(result: ItemResult) -> int:
    return (result.item.place or 0) if result.item else 0


def _find_formats(request: RunRequest) -> dict[str, tuple[OutputFormat, ...]]:
    pipeline, known = request.pipeline, dict(request.plugins.exporters)
    if request.pictures == "jpg" and known.get("image") is IMAGE:
        known["image"] = JPEG
    if Path(ERRORS_FILE).stem in pipeline.outputs:
        raise UsageError(
            f"{pipeline.source}: no output may be called {Path(ERRORS_FILE).stem!r}, because "
            f"{ERRORS_FILE} says which pictures failed; give it another name."
        )
    kinds = request.plugins.kinds
    return {
        name: find_formats(pipeline.kinds_of(selector), kinds, known)
        for name, selector in pipeline.outputs.items()
    }


def _place_of(item: str, names: str) -> PurePosixPath:
    """The folder of an item, relative to that of the run."""
    path = relative_path(item)
    return path.with_name(stem_of(path.name)) if names == "stem" and path.name else path


def _check_places(items: Collection[str], names: str) -> None:
    """Refuse items that would write over each other, before any of them runs."""
    owners: dict[PurePosixPath, str] = {}  # of folders that are not called like their items
    for item in items:
        if names == "id" and len(item) <= SHORT and not UNUSUAL.search(item):
            continue
        place = _place_of(item, names)
        other = str(place) if str(place) in items else owners.setdefault(place, item)
        if other != item:
            raise UsageError(_two_in_one(other, item, place))


def _two_in_one(item: str, other: str, place: PurePath) -> str:
    return (
        f"the results of {item!r} and {other!r} would both be in the folder {str(place)!r}. Name "
        "them apart, such as in a column 'id' of a table; leave out --names stem; or run them into "
        "folders of their own."
    )

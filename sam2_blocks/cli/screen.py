"""What people see: results on stdout; errors, warnings and the log on stderr.

Printing never stops work: what a console cannot show is written as an escape, and a closed stdout
is written to no more. Names come from strangers: what would steer a terminal is written as an
escape, too.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.engine.records import ErrorRecord

MOST_ALIKE = 3
"""Failures of one reason that are shown."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# All control characters but the line feed, which our messages have, and those that turn the
# direction of a text around.
STEERING = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def safe(text: object) -> str:
    """Make a text from outside one that rich prints as it is."""
    shown = STEERING.sub(lambda match: ascii(match[0])[1:-1], str(text))
    return escape(shown)


def safe_name(name: object) -> str:
    """The same for a name, which is on one line."""
    return safe(str(name).replace("\n", "\\n"))


def print_result(what: Any) -> None:
    """Print to stdout as long as somebody reads it; the work goes on without."""
    try:
        out.print(what, soft_wrap=isinstance(what, str))
    except (OSError, SystemExit):  # a full disk; rich leaves by SystemExit if nobody reads
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


class Failures:
    """Prints why items fail; of those that fail alike, the first few, and how many more there are.

    All frames of a long clip may fail for one reason, such as a file that is not beside it.

    Args:
        folder: where all of them are written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._alike: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def show(self, error: ErrorRecord) -> None:
        """Print why an item failed, unless that was said of others often enough."""
        sort = error.step, error.message.replace(error.item, "")
        self._alike[sort] += 1
        self._first.setdefault(sort, error.item)
        if self._alike[sort] <= MOST_ALIKE:
            where = safe_name(error.item) + (safe(f", step {error.step!r}") if error.block else "")
            err.print(f"[red]failed:[/] {where}: {safe(error.message)}", soft_wrap=True)

    def show_rest(self) -> None:
        """Print how many more there were of each sort, once all have come."""
        for sort, count in self._alike.items():
            if (more := count - MOST_ALIKE) > 0:
                first, folder = safe_name(self._first[sort]), safe(self._folder)
                told = f"{more} more like {first}; the errors in {folder} name them all"
                err.print(f"[red]failed:[/] {told}", soft_wrap=True)
        self._alike.clear()


def print_interrupted(finished: int, total: int | None, folder: str) -> None:
    """Say how far a run got that somebody ended, and how to go on."""
    many = "" if total is None else f" of {total}"
    err.print(
        f"[red]interrupted[/] after {finished}{many}; they are in {safe(folder)}, and --resume "
        "goes on from there",
        soft_wrap=True,
    )


def print_error(message: object) -> None:
    """Print what stopped the command."""
    err.print(f"[red]error:[/] {safe(message)}", soft_wrap=True)


def print_warning(message: object) -> None:
    """Print what works but looks wrong."""
    err.print(f"[yellow]warning:[/] {safe(message)}", soft_wrap=True)


def print_notes(notes: Sequence[str]) -> None:
    """Print what is worth knowing."""
    for note in notes:
        err.print(f"[yellow]note:[/] {safe(note)}", soft_wrap=True)


def warn_of_broken(plugins: Plugins) -> None:
    """Print which plugins are skipped, and why."""
    for record in plugins.records:
        if record.error:
            print_warning(f"plugin {record.name!r} is broken and skipped: {record.error}")


class _Unheard(io.TextIOWrapper):
    """What takes the place of stderr: work goes on when nobody can read why something failed.

    Args:
        stream: the one that was there; it is of no use afterwards.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.detach(), stream.encoding, line_buffering=True)

    def write(self, text: str) -> int:
        """Write, to nowhere once that has failed."""
        with self._to_nowhere_else():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held, to nowhere once that has failed."""
        with self._to_nowhere_else():
            super().flush()

    @contextmanager
    def _to_nowhere_else(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # what is held goes there, too
            os.close(nowhere)


class LogOnScreen(logging.Handler):
    """Prints what we log, and leaves the log of others to them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record as a line."""
        if record.levelno >= logging.WARNING:
            print_warning(record.getMessage())
        else:
            err.print(f"[dim]{safe(record.getMessage())}[/]", soft_wrap=True)


def set_up() -> None:
    """Make streams, warnings and log those of a program; a library must not."""
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = _Unheard(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("sam2_blocks")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, LogOnScreen) for handler in logger.handlers):
        logger.addHandler(LogOnScreen())
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore", category=UserWarning, module="supervision")
    warnings.filterwarnings("always", category=UserWarning, module="sam2_blocks")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_warning(message)

"""What people see: results on stdout; errors, warnings and the log on stderr.

Printing never stops work: what a console cannot show is written as an escape, and a closed stdout
is written to no more. Names come from strangers: what would steer a terminal is written as an
escape, too.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.engine.records import ErrorRecord

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# All control characters but the line feed, which our messages have, and those that turn the
# direction of a text around.
STEERING = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
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
    except (BrokenPipeError, SystemExit):  # rich leaves by SystemExit
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def print_failure(error: ErrorRecord) -> None:
    """Print why an item failed."""
    where = safe_name(error.item) + (safe(f", step {error.step!r}") if error.block else "")
    err.print(f"[red]failed:[/] {where}: {safe(error.message)}", soft_wrap=True)


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

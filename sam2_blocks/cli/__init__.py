"""The program ``sam2-blocks``: options and screen, no work of its own.

What this module imports is imported before Ctrl-C can be answered: nearly nothing.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

__all__ = ["main"]

INTERRUPTED = 130

SAME_S = 1.0
"""Interruptions so soon after the first one are taken for the same one: of a key that bounces, or
of a terminal and a program above us that both pass it on. Two at once may break locks of Python
itself, and what tidies up after the first."""

AT_ONCE = b"interrupted again: left at once; what is complete is kept\n"

OBJECTS_BETWEEN = 100_000
"""New objects between two looks for garbage: imports make many more, and none is garbage."""


def main() -> None:
    """Run the program; Ctrl-C and SIGTERM end it with 130, and what is finished is kept.

    Who does not want to wait for what is under way interrupts it once more.
    """
    _on_interruption(_leave)  # nothing is begun yet
    # At the very end Python takes our handlers away, and an interruption would be its exit code.
    atexit.register(_on_interruption, signal.SIG_IGN)  # the first to come is the last to go
    gc.set_threshold(OBJECTS_BETWEEN, *gc.get_threshold()[1:])
    _open_closed_streams()
    try:
        from sam2_blocks.cli.app import main as run

        _on_interruption(INTERRUPTIONS)
        try:
            run()
        finally:
            _on_interruption(_leave)  # all is done: what is left is Python's tidying up
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            gc.freeze()  # it goes with the process: nobody needs to look for garbage in it
    except KeyboardInterrupt:
        _leave()
    except BrokenPipeError:  # nobody reads stdout any more
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


class Interruptions:
    """The first one asks, by an error, for a tidy end; a later one does not wait for it."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    @property
    def came(self) -> bool:
        """Whether one did, whatever other people's code made of its error."""
        return self._first_s is not None

    def __call__(self, *_: object) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            raise KeyboardInterrupt
        if now_s - self._first_s > SAME_S:
            _leave_at_once()


INTERRUPTIONS = Interruptions()


def _leave_at_once() -> NoReturn:
    """End the process whatever it is at; files are whole or not there all the same."""
    atomic = sys.modules.get("sam2_blocks.files.atomic")
    if abandon := getattr(atomic, "abandon", None):
        abandon()
    with suppress(OSError):  # nobody listens
        os.write(2, AT_ONCE)
    _leave()


def _open_closed_streams() -> None:
    """Have streams where whoever started us closed them: a file of ours would get their number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _on_interruption(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    """Set what a scheduler's SIGTERM does, and Ctrl-C unless whoever started us has it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)

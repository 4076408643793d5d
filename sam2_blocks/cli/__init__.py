"""The program ``sam2-blocks``: options and screen, no work of its own.

What this module imports is imported before Ctrl-C can be answered: nearly nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

__all__ = ["main"]

INTERRUPTED = 130

OBJECTS_BETWEEN = 100_000
"""New objects between two looks for garbage: imports make many more, and none is garbage."""


def main() -> None:
    """Run the program; Ctrl-C and SIGTERM end it with 130, and what is finished is kept."""
    _on_interruption(_leave)  # nothing is begun yet
    gc.set_threshold(OBJECTS_BETWEEN, *gc.get_threshold()[1:])
    _open_closed_streams()
    try:
        from sam2_blocks.cli.app import main as run

        _on_interruption(signal.default_int_handler)
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


def _open_closed_streams() -> None:
    """Have streams where whoever started us closed them: a file of ours would get their number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _on_interruption(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Set what a scheduler's SIGTERM does, and Ctrl-C unless whoever started us has it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)

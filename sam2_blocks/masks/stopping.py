"""Long loops that nobody waits for any more: they look up now and then, and stop.

A thread cannot be stopped from outside. Who starts work that may be long says what is to be asked;
loops whose length a stranger chooses call `look_up` every few thousand turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("sam2_blocks_stopping", default=None)


@contextmanager
def stopping(check: Callable[[], None]) -> Iterator[None]:
    """Let long loops inside this block call ``check``, in this thread.

    Args:
        check: returns while the work is wanted; what it raises else ends the loop.
    """
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def look_up() -> None:
    """Go on only while the work is wanted; where nobody said what to ask, it is."""
    check = _CHECK.get()
    if check is not None:
        check()

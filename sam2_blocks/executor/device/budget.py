"""A bound in bytes on what threads hold at once, however many there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sam2_blocks.forks import after_fork


class ByteBudget:
    """Working memory that threads take and give back; who finds too little left waits.

    Args:
        max_bytes: what all threads may hold together. One thread alone may hold more.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        """Have all of it free in a forked child, where no other thread is."""
        self._taken = 0
        self._left = threading.Condition()

    @contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Hold so many bytes inside this scope, in which no more may be taken."""
        with self._left:
            self._left.wait_for(lambda: not self._taken or self._taken + nbytes <= self._max_bytes)
            self._taken += nbytes
        try:
            yield
        finally:
            with self._left:
                self._taken -= nbytes
                self._left.notify_all()

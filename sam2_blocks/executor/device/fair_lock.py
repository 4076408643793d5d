"""A lock that threads get in the order in which they ask for it."""

from __future__ import annotations

import threading
from collections import deque

from sam2_blocks.forks import after_fork


class FairLock:
    """Hands itself to whoever waits longest; use it with ``with``.

    `threading.Lock` is free for a moment when it is released, and a thread that takes it again and
    again, as one does that works through a grid of points, keeps taking it before those that wait.
    """

    def __init__(self) -> None:
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        """Be free and new: those who held or wanted it are not in a forked child."""
        self._guard = threading.Lock()  # of the two below; held for moments only
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()  # waits for `__exit__` of the one before
        except BaseException:  # Ctrl-C
            with self._guard:
                ours_already = turn not in self._waiting
                if not ours_already:
                    self._waiting.remove(turn)
            if ours_already:
                self._pass_on()
            raise

    def __exit__(self, *error: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

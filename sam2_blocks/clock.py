"""Where the time of a run goes: code says which stage it is at, and a run's clock adds up.

A stage within another is taken out of it, so that the stages of all threads add up to all that
was done. Code outside of a run pays for a look at a context variable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

WAITING = "wait"
"""Name of what is no work: waiting for pictures to be read."""

Listener = Callable[[str, float, float], None]
"""Gets a stage's name, and when it began and ended, as `time.perf_counter` has it."""

_CURRENT: ContextVar[Clock | None] = ContextVar("sam2_blocks_clock", default=None)


class Clock:
    """Adds up the seconds of each stage, over all threads that have this clock.

    Example:
        >>> clock = Clock()
        >>> with clock.running(), stage("decode"), stage("read"):
        ...     pass
        >>> sorted(clock.seconds)
        ['decode', 'read']
    """

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._inner = threading.local()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage so far, of those that ended."""
        with self._lock:
            return dict(self._seconds)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let stages inside this scope add to this clock, in threads with a copied context too."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Add what is within to a stage."""
        outer, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
        begun = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            own = ended - begun - self._inner.seconds
            self._inner.seconds = outer + ended - begun
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + own
            if self.listener is not None:
                self.listener(name, begun, ended)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time inside this scope as a stage of the run, if a clock is running.

    It is a decorator, too: ``@stage("read")``.

    Args:
        name: of the stage, such as ``read`` or ``embed``.
    """
    clock = _CURRENT.get()
    if clock is None:
        yield
    else:
        with clock.at(name):
            yield


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Divide the work of a run among its stages.

    Args:
        seconds: by stage, as `Clock.seconds`.

    Returns:
        Shares by stage that add up to 1, the largest first; waiting is no work.
    """
    work = {name: spent for name, spent in seconds.items() if name != WAITING}
    total = sum(work.values())
    largest = sorted(work, key=lambda name: -work[name])
    return {name: work[name] / total for name in largest} if total else {}

"""Threads and locks do not survive a fork: whoever holds some is told in the child.

A child that another thread's fork made, such as a worker of torch's ``DataLoader``, has one thread:
pools are without workers, and what another thread had locked stays locked for ever. So their
owners ask here to be called in every child before anything else runs there.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType

_rebuilders: list[Callable[[], Callable[[], None] | None]] = []


def after_fork(rebuild: Callable[[], None]) -> None:
    """Call a function, or the method of an object that is still there, in every forked child.

    Args:
        rebuild: replaces locks and pools; it must neither wait nor start threads.
    """
    _rebuilders[:] = [reference for reference in _rebuilders if reference() is not None]
    if isinstance(rebuild, MethodType):
        _rebuilders.append(weakref.WeakMethod(rebuild))
    else:
        _rebuilders.append(lambda: rebuild)


class ForkSafeLock:
    """A lock that is free in every forked child, whoever held it in the parent.

    For a lock that is all there is to make anew; what resets more than a lock after a fork, such as
    a pool or a queue, does both in one function given to `after_fork`.

    Example:
        >>> lock = ForkSafeLock()
        >>> with lock.held():
        ...     pass  # at most one thread of this process at a time
    """

    def __init__(self) -> None:
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it inside this scope.

        A thread that forks inside the scope leaves it in parent and child; there the lock is
        another one, which it does not touch.
        """
        with self._lock:
            yield


def _rebuild_all() -> None:
    for reference in list(_rebuilders):
        rebuild = reference()
        if rebuild is not None:
            rebuild()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_rebuild_all)

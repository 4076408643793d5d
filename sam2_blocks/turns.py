"""Threads of a run take turns more often, so that the one with the model does not wait for others.

What launches the work of a model gives Python's lock away at every operation and wants it back at
once. A thread that makes outlines or JSON meanwhile keeps it for 5 ms, CPython's default, each
time; the cores, or the GPU, stand still for as long.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TURN_S = 0.001
"""Longest turn; at a tenth of it, changing turns takes as long as it saves."""

_LOCK = threading.Lock()
_BEFORE: list[float] = []  # the turns in force when each began that is under way


@contextmanager
def short_turns() -> Iterator[None]:
    """Shorten the turns of all threads of this process meanwhile, unless they are short already.

    The last of several at once puts back what was in force before the first, unless somebody else
    changed it meanwhile.
    """
    with _LOCK:
        _BEFORE.append(sys.getswitchinterval())
        sys.setswitchinterval(min(TURN_S, _BEFORE[0]))
        ours = sys.getswitchinterval()
    try:
        yield
    finally:
        with _LOCK:
            before = _BEFORE.pop()
            if not _BEFORE and sys.getswitchinterval() == ours:
                sys.setswitchinterval(before)

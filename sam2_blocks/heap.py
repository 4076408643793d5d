"""Memory that is free within the process goes back to the system, so that long runs stay flat.

Results of a few hundred kilobytes that stay a while between activations of many megabytes that do
not leave holes in the heap of glibc, which it keeps; large pictures leave larger ones.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Give back what is free, where the system's allocator can; it takes some milliseconds."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another allocator than that of glibc
        return None
    return trim

"""Memory that is free within the process goes back to the system, so that long runs stay flat.

Results of a few hundred kilobytes that stay a while between activations of many megabytes that do
not leave holes in the heap of glibc, which it keeps; large pictures leave larger ones.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from collections.abc import Callable

LARGEST_LEARNED = 2**25 - 2**16
"""Just below what glibc asks of the system however large the blocks before were."""

TIDY_S = 1.0
"""Least seconds from one look of `tidy` to the next, which takes 10 to 20 ms."""

_tidied = 0.0


def give_back() -> None:
    """Give free memory back to the system, where the allocator can; it takes some milliseconds."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


def tidy() -> None:
    """Give back free memory, at most once in `TIDY_S`; call it after each large piece of work."""
    global _tidied
    now = time.monotonic()
    if now - _tidied >= TIDY_S:
        _tidied = now
        give_back()


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another allocator than that of glibc
        return None
    return trim


def keep_at_hand() -> None:
    """Have the allocator keep what work that comes again and again needs, up to 32 MiB.

    The one of glibc keeps twice the largest block that was ever asked of the system and given back:
    if that is little, each frame of a video gets its memory anew, page by page, which may take a
    tenth of the time. It learns the most that it can learn from one block, which is never touched.
    """
    if _find_trim() is not None:
        _allocate_and_free(LARGEST_LEARNED)


def _allocate_and_free(nbytes: int) -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.free(library.malloc(nbytes))

"""A package can be hidden, as if it were not installed, while another one is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let a package look as if it were not installed, inside this scope."""
    found = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # what importlib reads as absent
    try:
        yield
    finally:
        del sys.modules[name]
        if found is not None:
            sys.modules[name] = found

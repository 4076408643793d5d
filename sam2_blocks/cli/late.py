"""The engine, imported by the command that needs it: ``--help`` is there at once.

Supervision imports SciPy and tqdm for smoothed traces, data sets and progress bars, which no
command of ours has: half a second of every start. They are imported when somebody calls them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins

SELDOM_CALLED = {
    "scipy.interpolate": ("splev", "splprep"),
    "scipy.spatial": ("cKDTree",),
    "tqdm.auto": ("tqdm",),
}
"""What supervision imports by these names, and calls in functions alone."""


def load_plugins(*, strict: bool = False) -> Plugins:
    """Load the blocks and every plugin; see `sam2_blocks.load_plugins`."""
    import_supervision()
    from sam2_blocks.engine import plugins

    return plugins.load_plugins(strict=strict)


def import_supervision() -> None:
    """Import supervision without what it seldom calls.

    For a program with a single thread: meanwhile the packages look as supervision sees them.
    """
    if "supervision" in sys.modules:
        return
    stand_ins = {name: _stand_in(name) for name in SELDOM_CALLED if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("supervision")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    for attribute in SELDOM_CALLED[name]:
        setattr(module, attribute, _Later(name, attribute))
    return module


class _Later:
    """A function or class that is imported when somebody uses it."""

    def __init__(self, module: str, name: str) -> None:
        self._where = module, name

    def _found(self) -> Any:
        module, name = self._where
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._found()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

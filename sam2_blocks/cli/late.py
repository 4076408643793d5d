"""The engine, imported by the command that needs it: ``--help`` is there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins


def load_plugins(*, strict: bool = False) -> Plugins:
    """Load the blocks and every plugin; see `sam2_blocks.load_plugins`."""
    from sam2_blocks.engine import plugins

    return plugins.load_plugins(strict=strict)

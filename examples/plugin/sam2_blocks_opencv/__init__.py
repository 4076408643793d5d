"""OpenCV blocks for sam2_blocks.

This module is the plugin: its entry point is loaded whenever sam2_blocks starts, so it imports
nothing slow. OpenCV itself is imported when a step runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sam2_blocks import hookimpl


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring every YAML file of the manifests folder."""
    return [Path(__file__).parent / "manifests"]

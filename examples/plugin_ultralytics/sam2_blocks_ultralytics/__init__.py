"""Detectors of Ultralytics, as a block of sam2_blocks. Ultralytics is AGPL-3.0; see the README.

This module is the plugin: its entry point is loaded whenever sam2_blocks starts, so it imports
nothing slow. Ultralytics is imported when a model loads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_blocks import hookimpl
from sam2_blocks.executors import Family

FAMILY = "ultralytics"


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring every YAML file of the manifests folder."""
    return [Path(__file__).parent / "manifests"]


@hookimpl
def register_executors() -> Mapping[str, Family]:
    """Bring the family ``ultralytics``; strangers may name none of it, since files run code."""
    return {FAMILY: Family(_load, is_file=lambda name: True, find_problem=find_problem)}


def find_problem(name: str) -> str:
    """Say why a name is no model, before anything loads; empty if it may be one."""
    path = Path(name)
    if path.exists():
        return ""
    if path.name != name or path.suffix != ".pt":
        return (
            f"there is no file {name!r}. Give a path that starts where you run from, or the name "
            "of a model that Ultralytics downloads, such as 'yolo11n.pt'."
        )
    if os.environ.get("SAM2_BLOCKS_OFFLINE", "").strip() not in ("", "0"):
        return f"{name!r} would be downloaded, and SAM2_BLOCKS_OFFLINE is set. Give a file."
    return ""


def _load(model: str, *, device: str, dtype: str) -> Any:
    from sam2_blocks_ultralytics.model import load

    return load(model.removeprefix(f"{FAMILY}:"), device=device)

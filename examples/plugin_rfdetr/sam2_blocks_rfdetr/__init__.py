"""Checkpoints of the package rfdetr, as a block of sam2_blocks.

This module is the plugin: its entry point is loaded whenever sam2_blocks starts, so it imports
nothing slow. rfdetr is imported when a model loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_blocks import hookimpl
from sam2_blocks.executors import Family

FAMILY = "rfdetr"


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring every YAML file of the manifests folder."""
    return [Path(__file__).parent / "manifests"]


@hookimpl
def register_executors() -> Mapping[str, Family]:
    """Bring the family ``rfdetr``, so that a model is loaded once for all steps that name it."""
    return {FAMILY: Family(_load, is_file=lambda name: True, find_problem=find_problem)}


def find_problem(name: str) -> str:
    """Say why a name is no model, before anything loads; empty if it may be one."""
    if Path(name).is_file():
        return ""
    return f"there is no file {name!r}. Give the path of a checkpoint, from where you run."


def _load(model: str, *, device: str, dtype: str) -> Any:
    from sam2_blocks_rfdetr.model import load

    return load(model.removeprefix(f"{FAMILY}:"), device=device)

"""Detectors that were exported to ONNX, as a block of sam2_blocks.

This module is the plugin: its entry point is loaded whenever sam2_blocks starts, so it imports
nothing slow. onnxruntime is imported when a model loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_blocks import hookimpl
from sam2_blocks.executors import Family

FAMILY = "onnx"


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring every YAML file of the manifests folder."""
    return [Path(__file__).parent / "manifests"]


@hookimpl
def register_executors() -> Mapping[str, Family]:
    """Bring the family ``onnx``, so that a model is loaded once for all steps that name it."""
    return {FAMILY: Family(_load, is_file=lambda name: True, find_problem=find_problem)}


def find_problem(name: str) -> str:
    """Say why a name is no model, before anything loads; empty if it may be one."""
    path = Path(name)
    if path.suffix != ".onnx":
        return f"{name!r} is no .onnx file. Export your model to ONNX; see the plugin's README."
    return "" if path.is_file() else f"there is no file {name!r}. Paths start where you run from."


def _load(model: str, *, device: str, dtype: str) -> Any:
    from sam2_blocks_onnx.model import load

    return load(model.removeprefix(f"{FAMILY}:"), device=device)

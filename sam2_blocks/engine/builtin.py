"""Our own blocks, brought through the same hooks as anyone's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_blocks.engine import exporters
from sam2_blocks.engine.hookspecs import hookimpl
from sam2_blocks.engine.places import Exporter
from sam2_blocks.executors import DEFAULT_FACTORY, Executor, ExecutorFactory
from sam2_blocks.kinds import BUILTIN_KINDS, Kind
from sam2_blocks.language.manifest import manifest_dir


def load_sam2(model: str, *, device: str, dtype: str, **options: Any) -> Executor:
    """Load a SAM 2 model; imports torch, hence only when a step needs it.

    Args:
        model: name or path.
        device: as in `sam2_blocks.executor.load`.
        dtype: as there.
        options: the other arguments of it.
    """
    from sam2_blocks.executor import load

    executor: Executor = load(model, device=device, dtype=dtype, **options)
    return executor


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring the manifests folder."""
    return [manifest_dir()]


@hookimpl
def register_kinds() -> Iterable[Kind]:
    """Bring the built-in kinds."""
    return BUILTIN_KINDS


@hookimpl
def register_executors() -> Mapping[str, ExecutorFactory]:
    """Bring the SAM 2 executor."""
    return {DEFAULT_FACTORY: load_sam2}


@hookimpl
def register_exporters() -> Mapping[str, Exporter]:
    """Bring the file writers."""
    return exporters.BUILTIN_EXPORTERS

"""What may compute a model, and whether it is here. No torch."""

from __future__ import annotations

import importlib.util
import os
from typing import Literal, get_args

from sam2_blocks.errors import did_you_mean

Backend = Literal["torch", "openvino"]
BackendChoice = Literal["torch", "openvino", "auto"]

BACKENDS: tuple[str, ...] = get_args(BackendChoice)
BACKEND_VARIABLE = "SAM2_BLOCKS_BACKEND"
"""Environment variable: what ``auto`` is."""

OPENVINO_MISSING = (
    "backend 'openvino' needs the package 'openvino', which is not installed. "
    "Run: pip install 'sam2-blocks[openvino]', or use backend 'torch' or 'auto'."
)


def find_backend_problem(name: str) -> str:
    """Say what is wrong with a backend, as far as can be known without loading anything.

    Args:
        name: as somebody wrote it.

    Returns:
        A sentence, empty if nothing is wrong.
    """
    if name not in BACKENDS:
        return f"there is no backend {name!r}.{did_you_mean(name, BACKENDS)}"
    if name == "openvino" and not has_openvino():
        return OPENVINO_MISSING
    return ""


def default_backend() -> str:
    """Return what ``auto`` is here: itself, unless the environment says otherwise."""
    return os.environ.get(BACKEND_VARIABLE) or "auto"


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None

"""Backends, torch or OpenVINO: which there are, and which are installed. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Literal, get_args

from sam2_blocks.errors import did_you_mean
from sam2_blocks.installed import version_of

Backend = Literal["torch", "openvino"]
BackendChoice = Literal["torch", "openvino", "auto"]

BACKENDS: tuple[str, ...] = get_args(BackendChoice)
BACKEND_VARIABLE = "SAM2_BLOCKS_BACKEND"
"""Environment variable: what ``auto`` is."""

OLDEST_OPENVINO = (2026, 4)
"""Whose names are used here; that of the extra in ``pyproject.toml``."""

OPENVINO_MISSING = (
    "backend 'openvino' needs the package 'openvino', which is not installed. "
    "Run: pip install 'sam2-blocks[openvino]', or use backend 'torch' or 'auto'."
)

OPENVINO_BROKEN = (
    "backend 'openvino' needs the package 'openvino', which is installed and cannot be used: {}. "
    "Run: pip install --force-reinstall openvino, or use backend 'torch'."
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
    if name == "openvino":
        return _find_openvino_problem() if has_openvino() else OPENVINO_MISSING
    return ""


def _find_openvino_problem() -> str:
    """Say why the OpenVINO that is installed is of no use; empty if nothing speaks against it."""
    version = version_of("openvino")
    numbers = re.match(r"(\d+)\.(\d+)", version)  # none where nobody noted what was installed
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= OLDEST_OPENVINO:
        return ""
    oldest = ".".join(map(str, OLDEST_OPENVINO))
    return (
        f"backend 'openvino' needs OpenVINO {oldest} or later, and {version} is installed. Run: "
        "pip install --upgrade 'sam2-blocks[openvino]', or use backend 'torch'."
    )


def default_backend() -> str:
    """Return what ``auto`` is here: itself, unless the environment says otherwise."""
    return os.environ.get(BACKEND_VARIABLE) or "auto"


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported.

    A folder of its name is no package: uninstalling leaves one behind if somebody added files.
    """
    spec = importlib.util.find_spec("openvino")
    return spec is not None and spec.origin is not None

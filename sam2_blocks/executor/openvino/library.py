"""The ``openvino`` package, imported without what reports its use."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor.backends import OPENVINO_BROKEN, find_backend_problem
from sam2_blocks.executor.imports import hidden
from sam2_blocks.forks import ForkSafeLock

NEEDED = ("Core", "Tensor", "convert_model")
"""What is used of the package."""

_importing = ForkSafeLock()


def openvino() -> Any:
    """Import the package.

    Importing it, and converting with it, would tell its makers over the network, without asking.
    It does neither where ``openvino_telemetry`` is not installed, so that looks absent meanwhile;
    who has imported OpenVINO before has decided for himself.

    Raises:
        MissingExtraError: if it is not installed, cannot be imported, or is too old.
    """
    with _importing.held():
        return _import()


@functools.cache
def _import() -> Any:
    problem = find_backend_problem("openvino")
    if problem:
        raise MissingExtraError(problem)
    try:
        with hidden("openvino_telemetry"):
            package = importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError(OPENVINO_BROKEN.format(error)) from error
    absent = [name for name in NEEDED if not hasattr(package, name)]
    if absent:
        raise MissingExtraError(OPENVINO_BROKEN.format(f"it has no {absent[0]!r}"))
    return package


@functools.cache
def core() -> Any:
    """Return OpenVINO's runtime, one for the process."""
    return openvino().Core()


def describe_openvino() -> str:
    """Name the version, and in what it computes fast on this CPU.

    Raises:
        MissingExtraError: if it cannot be used.
        RuntimeError: if it does not know this CPU.
    """
    abilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    fast = [name for name in ("FP32", "BF16", "FP16", "INT8") if name in abilities]
    return f"{openvino().get_version().partition('-')[0]}: {', '.join(fast)}"

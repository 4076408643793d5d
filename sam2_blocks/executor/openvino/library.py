"""The ``openvino`` package, imported without what reports its use."""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor.backends import OPENVINO_MISSING
from sam2_blocks.executor.imports import hidden
from sam2_blocks.forks import after_fork

_importing = threading.Lock()


def _forget() -> None:
    """Free the lock in a forked child, where whoever held it is not."""
    global _importing
    _importing = threading.Lock()


after_fork(_forget)


def openvino() -> Any:
    """Import the package.

    Importing it, and converting with it, would tell its makers over the network, without asking.
    It does neither where ``openvino_telemetry`` is not installed, so that looks absent meanwhile;
    who has imported OpenVINO before has decided for himself.

    Raises:
        MissingExtraError: if it is not installed, or cannot be imported.
    """
    with _importing:
        return _import()


@functools.cache
def _import() -> Any:
    try:
        with hidden("openvino_telemetry"):
            return importlib.import_module("openvino")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "openvino"
        reason = "" if missing else f" ({error})"
        raise MissingExtraError(f"{OPENVINO_MISSING}{reason}") from error


@functools.cache
def core() -> Any:
    """Return OpenVINO's runtime, one for the process."""
    return openvino().Core()

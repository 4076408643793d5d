"""The ``transformers`` package, also beside a ``torchvision`` that cannot be imported.

``transformers`` takes every installed ``torchvision`` for one that works, and fails to import any
model beside one that does not, such as a CUDA build beside a torch for CPUs. Nothing that we run
needs it but some image processors. So a ``torchvision`` that cannot be imported is hidden while
``transformers`` looks for it; it then takes the processors that do without, where there are.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import nullcontext
from typing import Any

from sam2_blocks.errors import MissingExtraError, as_error, message_of
from sam2_blocks.executor.imports import hidden
from sam2_blocks.installed import version_of


@functools.cache
def transformers() -> Any:
    """Import the package.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        with hidden("torchvision") if torchvision_problem() else nullcontext():
            package = importlib.import_module("transformers")
            importlib.import_module("transformers.utils").is_torchvision_available()
    except ImportError as error:
        raise MissingExtraError(
            "this detector needs the package 'transformers', 5.20 or newer: "
            f"{error}. Run: pip install 'sam2-blocks[transformers]'"
        ) from error
    return package


@functools.cache
def torchvision_problem() -> str:
    """Say why ``torchvision`` cannot be used, and what to do; empty if it can."""
    try:
        importlib.import_module("torchvision")
    except BaseException as error:  # its extensions fail to load in many ways
        cause = as_error(error)
        return (
            f"{_named('torchvision')} cannot be imported beside {_named('torch')}: "
            f"{type(cause).__name__}: {message_of(cause)}. Install the build that belongs to your "
            "torch from the same index, such as pip install --force-reinstall --no-deps "
            "torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    return ""


def _named(distribution: str) -> str:
    return f"{distribution} {version_of(distribution)}".rstrip()

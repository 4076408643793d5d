"""Parquet through pyarrow, which is an extra: opened with errors that say what to do."""

from __future__ import annotations

from typing import Any

from sam2_blocks.errors import MissingExtraError, UsageError


def load_pyarrow() -> Any:
    """Import pyarrow with its Parquet module.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'sam2-blocks[data]'") from error
    return pyarrow


def open_parquet(file: Any, label: str) -> Any:
    """Open a Parquet file for reading.

    Args:
        file: open, binary, seekable.
        label: what messages call it.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        UsageError: if it is none, or was cut short.
    """
    pyarrow = load_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UsageError(f"{label}: is no whole Parquet file: {error}") from error

"""Parquet through pyarrow, which is an extra: opened with errors that say what to do."""

from __future__ import annotations

import re
from typing import Any

from sam2_blocks.errors import MissingExtraError, UsageError

BUFFER_BYTES = 2**18
"""Read at once of a column, so that row groups of any size take little memory."""


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
        return pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UsageError(f"{label}: is no whole Parquet file: {error}") from error


def text_to_cell(text: str) -> str:
    r"""Make a text one that UTF-8 can hold; nearly all are already.

    Names of files may be any bytes, and Python has those that are no UTF-8 as surrogates. They are
    written as ``\udcff``, and a backslash that looks like the beginning of one as ``\ud05c``.
    """
    if text.isascii() and "\\ud" not in text:
        return text
    return _SURROGATE.sub(
        lambda found: "\\ud05cud" if len(found[0]) > 1 else f"\\u{ord(found[0]):04x}", text
    )


def cell_to_text(cell: str) -> str:
    r"""Undo `text_to_cell`.

    Example:
        >>> name = "caf\udce9.jpg"
        >>> cell_to_text(text_to_cell(name)) == name
        True
    """
    if "\\ud" not in cell:
        return cell

    def undo(found: re.Match[str]) -> str:
        return "\\" if found[1] == "05c" else chr(int(f"d{found[1]}", 16))

    return _ESCAPED.sub(undo, cell)


_SURROGATE = re.compile(r"[\ud800-\udfff]|\\ud")
_ESCAPED = re.compile(r"\\ud(05c|[89a-f][0-9a-f]{2})")

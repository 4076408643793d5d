"""Writing files so that they are whole or not there."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import to_jsonable_python


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> Path:
    """Write a file beside its place and move it there once it is complete.

    Args:
        path: where the file shall be; missing folders are made.
        write: writes the content to an open binary file.

    Returns:
        ``path``.

    Raises:
        OSError: if it cannot be written (disk full, no permission); nothing is left behind and an
            older file of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text; see `write_atomically`."""
    return write_bytes(path, text.encode())


def unfinished_path(path: Path) -> Path:
    """Where a file that grows during a run is kept until it is whole."""
    return path.with_name(f".{path.name}.part")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON; numbers that are not finite become null, unknown types text."""
    plain = to_jsonable_python(value, inf_nan_mode="null", fallback=str)
    return json.dumps(plain, indent=indent)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes; see `write_atomically`."""
    return write_atomically(path, lambda file: _write_all(file, content))


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)

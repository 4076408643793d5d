"""Texts that other people's tools wrote; whatever is wrong with a file, the message names it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def file_stamp(path: str | Path) -> str:
    """Size and time of a file, which is taken to be as it was while both are; empty without it."""
    try:
        status = os.stat(path)
    except OSError:  # reading it says so
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_text(path: Path) -> str:
    """Read UTF-8 text, with or without a mark at its beginning.

    Raises:
        ValueError: if there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error})") from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: if there is no such file, or it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error

"""Texts that other people's tools wrote; whatever is wrong with a file, the message names it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any


def file_stamp(path: str | Path) -> str:
    """Size and time of a file, which is taken to be as it was while both are; empty without it."""
    try:
        status = os.stat(path)
    except OSError:  # reading it says so
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


class FileStamps:
    """Stamps of many files at one moment; those that were asked for lately are not looked up again.

    Many items share a file of boxes.
    """

    def __init__(self) -> None:
        self._stamp_of = lru_cache(maxsize=1024)(file_stamp)

    def are(self, then: Iterable[tuple[str, str]]) -> bool:
        """Whether all files have the stamps that they had, as (path, stamp)."""
        return all(self._stamp_of(path) == stamp for path, stamp in then)


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

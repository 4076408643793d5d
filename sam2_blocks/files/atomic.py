"""Writing files so that they are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeVar

import numpy as np
from pydantic_core import to_jsonable_python

LONGEST_NAME = 255
"""Bytes that file systems allow for the name of a file or folder."""

IN_THE_WAY = (
    "so a file and a folder would be in one place; give what writes the one another path or name"
)

TOKEN_DIGITS = 8
TORN = re.compile(rf"\.[0-9a-f]{{{TOKEN_DIGITS}}}\.part$")

_PARTS: set[Path] = set()
"""Files that are being written at this moment, in all threads."""

_abandoned = False

LAST_WORDS_S = 0.02
"""For threads that were just about to make a file when all were abandoned."""

AnyPath = TypeVar("AnyPath", bound=PurePath)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(error.errno, f"{error.strerror}, {IN_THE_WAY}", str(path)) from error
    part = hidden_path(path, f".{secrets.token_hex(TOKEN_DIGITS // 2)}.part")
    _PARTS.add(part)  # before it is there
    try:
        if _abandoned:
            raise InterruptedError(errno.EINTR, "the process is about to end", str(path))
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            why = str(error.strerror)
            why += f", {IN_THE_WAY}" if isinstance(error, IsADirectoryError) else ""
            raise OSError(error.errno, why, str(path)) from error
        raise
    finally:
        _PARTS.discard(part)
    return path


def abandon() -> None:
    """Remove what is half-written and write nothing more: the process ends now, by force.

    Takes no lock, so that a signal handler may call it.
    """
    global _abandoned
    _abandoned = True
    for pause_s in (LAST_WORDS_S, 0):
        for part in tuple(_PARTS):
            with suppress(OSError):
                part.unlink()
        time.sleep(pause_s)


def remove_torn(paths: Iterable[Path]) -> None:
    """Remove what `write_atomically` left of these files when its process was killed.

    Nobody else may be writing them.
    """
    names: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(hidden_path(path, f".{'0' * TOKEN_DIGITS}.part").name)
    for folder, wanted in names.items():
        with suppress(OSError):  # there is no such folder
            for found in os.listdir(folder):
                if TORN.sub(f".{'0' * TOKEN_DIGITS}.part", found) in wanted:
                    (folder / found).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole or not at all; see `write_atomically`.

    Args:
        path: where the file shall be.
        text: characters that UTF-8 cannot encode, such as lone surrogates, become escapes.

    Returns:
        ``path``.
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def hidden_path(path: Path, ending: str) -> Path:
    """Return a hidden path beside a file: its name with a dot before and an ending behind.

    Args:
        path: the file.
        ending: of the hidden name, such as ``.part``.

    Returns:
        A path in the same folder. Where the name would be too long for a file system, a digest
        stands for the file's name.
    """
    hidden = f".{path.name}{ending}"
    if len(os.fsencode(hidden)) > LONGEST_NAME:
        hidden = f".{_digest(path.name)}{ending}"
    return path.with_name(hidden)


def unfinished_path(path: Path) -> Path:
    """Where a file that grows during a run is kept until it is whole."""
    return hidden_path(path, ".part")


def shorten(path: AnyPath) -> AnyPath:
    """Shorten names in a path that no file system would take; different ones stay different."""
    return type(path)(*(_short(part) for part in path.parts))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON.

    Args:
        value: anything; numbers that are not finite become null, unknown types their text.
        indent: spaces for each level; None writes one line.
    """
    plain = to_jsonable_python(value, inf_nan_mode="null", fallback=_plain)
    return json.dumps(plain, indent=indent)


def _plain(value: Any) -> Any:
    """Numbers and lists of numpy's, texts of all else."""
    if not isinstance(value, np.ndarray | np.generic):
        return str(value)
    made = value.tolist()
    return str(made) if isinstance(made, np.generic) else made  # as of long doubles


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes; see `write_atomically`."""
    return write_atomically(path, lambda file: _write_all(file, content))


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _short(name: str) -> str:
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    suffix = PurePath(name).suffix
    if len(os.fsencode(suffix)) > 20:  # no suffix, only a dot somewhere
        suffix = ""
    tail = f"-{_digest(name)[:16]}{suffix}"
    kept = os.fsencode(name)[: LONGEST_NAME - len(os.fsencode(tail))]
    return kept.decode(errors="ignore") + tail


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]

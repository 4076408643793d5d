"""Pictures that people drop, paste or open: kept beside what is clicked in them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from threading import Lock

from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.files.atomic import shorten, write_bytes
from sam2_blocks.formats.images import open_picture
from sam2_blocks.runs.sources.folder import list_pictures, picture_suffixes
from sam2_blocks.service.errors import ImageRefusedError

BROUGHT = "pictures"
"""Folder below ``out``, and the beginning of the names of what is in it."""

_NO_NAME = re.compile(r'[\x00-\x1f\x7f<>:"|?*#]+')  # what some file systems or our names refuse
_keeping = Lock()


def list_brought(out: Path) -> dict[str, Path]:
    """Return the pictures that were brought: files by name, in natural order."""
    folder = out / BROUGHT
    try:
        found = list_pictures([str(folder)]) if folder.is_dir() else {}
    except UsageError:  # it is empty
        return {}
    return {f"{BROUGHT}/{name}": path for name, path in found.items()}


def keep_brought(out: Path, name: str, content: bytes, *, max_pixels: int) -> str:
    """Keep a picture; one that is kept already under this name stays the only one.

    Args:
        out: the folder of results.
        name: as the file is called where it comes from; what many pasted ones share.
        content: the encoded picture.
        max_pixels: refuse larger ones.

    Returns:
        The name of its file below ``out``, with ``/``.

    Raises:
        ImageRefusedError: if it is no picture that can be read, or cannot be written.
    """
    plain = _file_name(name, content, max_pixels)
    with _keeping:
        for candidate in _names(plain):
            path = out / BROUGHT / candidate
            if path.is_file() and not holds(path, content):
                continue
            try:
                if not path.is_file():
                    write_bytes(path, content)
            except OSError as error:
                raise ImageRefusedError(f"{name}: cannot be kept ({error}).") from error
            return f"{BROUGHT}/{candidate}"
    raise AssertionError  # the names do not end


def holds(path: Path, content: bytes) -> bool:
    """Whether a file has just this content."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _file_name(name: str, content: bytes, max_pixels: int) -> str:
    """A name for the file, with an ending that says that it is a picture."""
    try:
        with open_picture(content, label=name, max_pixels=max_pixels) as picture:
            ending = f".{str(picture.format).lower()}"
    except ImageError as error:
        raise ImageRefusedError(str(error)) from error
    last = re.split(r"[/\\]", name)[-1]
    plain = _NO_NAME.sub("-", last).strip(". ") or "picture"
    known = PurePosixPath(plain).suffix.lower() in picture_suffixes()
    return str(shorten(PurePosixPath(plain if known else plain + ending)))


def _names(plain: str) -> Iterator[str]:
    """The name, and others like it."""
    yield plain
    path = PurePosixPath(plain)
    for number in itertools.count(2):
        yield str(shorten(path.with_name(f"{path.stem}-{number}{path.suffix}")))

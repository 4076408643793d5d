"""What a path or a URL stands for: its bytes and its name, wherever it is.

A path in a file, a list as well as a table of results, is relative to the folder of that file, and
one that a person or a program names to the current folder.

Addresses are paths of this machine, ``http(s)`` URLs, which go through the guarded fetch, and
every URL that fsspec knows, such as ``s3://…``, ``hf://…`` or ``zip://*.jpg::s3://…``. Reads that
fail for a reason that may pass are tried again, each time after a longer pause.
"""

from __future__ import annotations

import functools
import glob
import io
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from sam2_blocks.clock import stage
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.environment import read_switch
from sam2_blocks.errors import ImageError, MissingExtraError, UsageError
from sam2_blocks.files.reading import file_stamp
from sam2_blocks.formats.images import read_image
from sam2_blocks.service.errors import PrivateAddressError, RequestError, UnansweredError
from sam2_blocks.service.fetch import FetchLimits, fetch
from sam2_blocks.values import Image

REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
MAX_FETCHED_BYTES = 2**28
FETCH_TIMEOUT_S = 60.0
TRIES = 4
PAUSE_S = 0.5
FOR_GOOD = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of a file system that no second try would escape."""

Read = TypeVar("Read")


def is_remote(text: str) -> bool:
    """Whether a text is a URL, not a path of this machine."""
    return ":" in text and REMOTE.match(text) is not None


def is_web(text: str) -> bool:
    """Whether a text is an ``http`` or ``https`` URL by itself."""
    return "::" not in text and text.lower().startswith(("http://", "https://"))


def has_wildcards(text: str) -> bool:
    """Whether a text is a pattern; a question mark in a web address begins its query."""
    return glob.has_magic(text) and not is_web(text)


def suffix_of(address: str) -> str:
    """The ending of an address in lower case, such as ``.csv``; that of a URL without its query."""
    path = re.split(r"[?#]", address)[0] if is_web(address) else address.split("::")[0]
    return os.path.splitext(path)[1].lower()


def join(base: str, text: str) -> str:
    """Resolve an entry of a list against the folder of the list.

    Args:
        base: a folder or URL; empty for the working folder.
        text: a path or URL; an absolute one is returned as it is.
    """
    if is_remote(text) or os.path.isabs(text) or not base:
        return text
    return f"{base}/{text}" if is_remote(base) else os.path.join(base, text)


def seen_from(base: str, address: str) -> str:
    """How a file in a folder names what is at an address, so that `join` finds it from anywhere.

    Args:
        base: the folder, a path or URL.
        address: a URL or an absolute path, which stay, or a path relative to the current folder.
    """
    if not address or is_remote(address) or os.path.isabs(address):
        return address
    folder, name = os.path.split(os.path.abspath(address))
    if not is_remote(base):
        folder = _folder_seen_from(os.path.abspath(base), folder)
    return os.path.join(folder, name)


@functools.lru_cache(maxsize=1024)
def _folder_seen_from(base: str, folder: str) -> str:
    """Relative where that leads there, which a link on the way may prevent; else absolute."""
    with suppress(OSError, ValueError):  # nothing is there, or it is on another drive
        way = os.path.relpath(folder, base)
        if os.path.samefile(os.path.join(base, way), folder):
            return way
    return folder


def tidy(path: str) -> str:
    """Leave out steps back and forth in a path, where no link makes them lead elsewhere."""
    folder, name = os.path.split(path)
    return os.path.join(_tidy_folder(folder, os.getcwd()), name)


@functools.lru_cache(maxsize=1024)
def _tidy_folder(folder: str, current: str) -> str:
    short = os.path.normpath(folder) if folder else ""
    with suppress(OSError):
        if folder and not os.path.samefile(short, folder):
            return folder
    return "" if short == "." else short


def parent_of(address: str) -> str:
    """The folder that an address is in; that of a chained URL is not known."""
    if not is_remote(address):
        return os.path.dirname(address)
    return "" if "::" in address else address.rpartition("/")[0]


def absolute(address: str) -> str:
    """Return an address that means the same from every working folder."""
    return address if is_remote(address) else os.path.abspath(address)


def stamp_of(address: str) -> str:
    """Size and time of a local file, empty if it is not there; a URL is taken not to change."""
    return "url" if is_remote(address) else file_stamp(address)


@stage("read")
def read_bytes(address: str) -> bytes:
    """Read what is at an address.

    Raises:
        ImageError: if it cannot be read.
        MissingExtraError: if a package is missing for this kind of URL.
    """
    if is_web(address):
        return _fetch(address)
    try:
        if not is_remote(address):
            return Path(address).read_bytes()
        system, path = open_system(address)
        return cast(bytes, with_retries(lambda: system.cat_file(path)))
    except FileNotFoundError as error:
        raise ImageError(f"{address}: no such file. Check the address.") from error
    except OSError as error:
        raise ImageError(f"{address}: cannot be read: {error}.") from error


def open_binary(address: str) -> AbstractContextManager[BinaryIO]:
    """Open what is at an address, to be read bit by bit; web addresses are read whole.

    Raises:
        UsageError: if there is nothing.
    """
    try:
        if is_web(address):
            return io.BytesIO(_fetch(address))
        if not is_remote(address):
            return open(address, "rb")
        system, path = open_system(address)
        return cast(BinaryIO, with_retries(lambda: system.open(path, "rb")))
    except (ImageError, OSError) as error:
        raise UsageError(f"{address}: cannot be read: {error}") from error


def read_picture(address: str, image_id: str, request: RunRequest, named_in: str = "") -> Image:
    """Read the picture at an address, in the limits of a run; see `read_image`.

    Args:
        address: a path or URL.
        image_id: name of the picture.
        request: the run: its largest picture and range of values.
        named_in: the file that names it by a relative path, for the error where it is not there.

    Raises:
        ImageError: if it cannot be read.
    """
    if named_in and not is_remote(address) and not os.path.exists(address):
        raise ImageError(
            f"{address}: no such file. Check the path; those in {named_in} are relative to its "
            "folder."
        )
    return decode_picture(read_bytes(address) if is_remote(address) else address, image_id, request)


def decode_picture(content: str | bytes, image_id: str, request: RunRequest) -> Image:
    """Decode a picture, in the limits of a run; see `read_picture`.

    Args:
        content: the path of a file of this machine, or the bytes of one.
        image_id: name of the picture.
        request: the run.

    Raises:
        ImageError: if it cannot be decoded.
    """
    return read_image(
        content,
        image_id=image_id,
        max_pixels=request.max_pixels,
        value_range=request.value_range,
    )


def open_system(address: str) -> tuple[Any, str]:
    """Find the fsspec file system of a URL, and the path in it.

    Raises:
        MissingExtraError: if fsspec, or the package for this kind of URL, is not installed.
        UsageError: if there is no such kind of URL, or its file system cannot be opened.
    """
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(
            f"{address}: {error}. pip install 'sam2-blocks[remote]', and the package for this "
            "kind of URL, such as s3fs, gcsfs or huggingface_hub."
        ) from error
    except ValueError as error:
        raise UsageError(f"{address}: {error}. Give a path, or a URL that fsspec knows.") from error
    except Exception as error:  # an archive that is none, a host that is not there: as many kinds
        raise UsageError(
            f"{address}: cannot be opened: {type(error).__name__}: {error}. Check the URL; a file "
            "in an archive is zip://NAME::ARCHIVE.zip."
        ) from error
    return system, path


def with_retries(
    read: Callable[[], Read],
    *,
    tries: int = TRIES,
    pause_s: float = PAUSE_S,
    sleep: Callable[[float], None] | None = None,
) -> Read:
    """Call something that reads over a network, again after a pause where that may help.

    Args:
        read: raises OSError, or `UnansweredError`, when it fails for now.
        tries: calls at most; what the last one raises is raised.
        pause_s: before the second call; twice as long before each further one, and up to half as
            long again, so that many workers do not come back at once.
        sleep: waits so many seconds; `time.sleep` if not given.

    Raises:
        OSError: what the last call raised, or the first that cannot go better.
    """
    for number in range(tries - 1):
        try:
            return read()
        except (OSError, UnansweredError) as error:
            if isinstance(error, FOR_GOOD):
                raise
            (sleep or time.sleep)(pause_s * 2**number * random.uniform(1, 1.5))
    return read()


def _fetch(url: str) -> bytes:
    limits = FetchLimits(
        max_bytes=MAX_FETCHED_BYTES,
        timeout_s=FETCH_TIMEOUT_S,
        allow_private=read_switch("SAM2_BLOCKS_ALLOW_PRIVATE_URLS"),
    )
    try:
        return with_retries(functools.partial(fetch, url, limits))
    except PrivateAddressError as error:
        raise ImageError(
            f"{url}: leads to an address that is not public. Set SAM2_BLOCKS_ALLOW_PRIVATE_URLS=1 "
            "to fetch from those, too."
        ) from error
    except RequestError as error:
        raise ImageError(f"{url}: {error}") from error

"""What compilers made of a network, on disk: one file each, named by its content, whole or absent.

A file is what was exported, then its SHA-256. It is mapped, not read: the weights that OpenVINO
has in it are needed once, and the system may have that memory back. What is damaged is deleted,
and a folder that cannot be written is only read.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from sam2_blocks.executor.weights.download import cache_dir
from sam2_blocks.files.atomic import write_bytes
from sam2_blocks.values import UInt8Array

LOGGER = logging.getLogger(__name__)
VERSION = 2  # of the layout above
SUFFIX = ".blob"
OPENVINO, PACKAGES = "openvino", "packages"
"""Folders of the cache: of OpenVINO, and of AOTInductor."""

MAX_BYTES = 8 * 2**30
"""Bound of each: the largest network is 0.9 GiB."""

MADV_PAGEOUT = 21
"""Of Linux 5.4 and later; in Python's module from 3.14 on."""

DIGEST_BYTES = hashlib.sha256().digest_size


def compiled_path(identity: str, folder: str = OPENVINO) -> Path:
    """Return the path of a compiled file, whether or not it is there.

    Args:
        identity: everything that the content depends on; equal texts mean equal content.
        folder: below the cache of this user.
    """
    name = hashlib.blake2b(f"v{VERSION}, {identity}".encode(), digest_size=16).hexdigest()
    return cache_dir() / folder / f"{name}{SUFFIX}"


def map_compiled(path: Path) -> UInt8Array | None:
    """Map a compiled file into memory.

    Returns:
        uint8, (bytes,), the file's content, privately: writes to it do not reach the file. None if
        there is no file, or its checksum differs from what was written.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else b""
    except OSError:
        return None
    with memoryview(mapped) as content:
        end = max(0, size - DIGEST_BYTES)
        if hashlib.sha256(content[:end]).digest() != content[end:]:
            discard_compiled(path, "its content is not what was written (the checksum differs)")
            return None
    with suppress(OSError):  # another process dropped it, or the folder is read-only
        os.utime(path)
    return np.frombuffer(mapped, np.uint8, count=end)


def page_out(mapped: UInt8Array) -> None:
    """Let the system have the memory of a mapping; what is read of it again comes from the file.

    It would take it by itself where memory is short, and until then count it as this process's.
    """
    base = mapped.base.obj if isinstance(mapped.base, memoryview) else mapped.base
    if isinstance(base, mmap.mmap) and sys.platform == "linux":
        with suppress(OSError):  # of a system that cannot
            base.madvise(MADV_PAGEOUT)


def write_compiled(path: Path, exported: bytes) -> None:
    """Keep what was exported for the next process; the log says why, where that cannot be.

    Args:
        path: as `compiled_path` names it.
        exported: the content.
    """
    if len(exported) > MAX_BYTES:
        return
    try:
        keep_compiled(path, exported)
    except OSError as error:
        LOGGER.warning("%s", describe_unkept(path, error))


def keep_compiled(path: Path, exported: bytes) -> None:
    """Keep what was exported; the least recently used files make room for it.

    Args:
        path: as `compiled_path` names it.
        exported: the content.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    _make_room(path.parent, len(exported))
    write_bytes(path, exported + hashlib.sha256(exported).digest())


def check_writable(path: Path) -> None:
    """See that a file can be written there, before minutes are spent on its content.

    Raises:
        OSError: if it cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def describe_unkept(path: Path, error: OSError) -> str:
    """Say why a file could not be kept, and what to do."""
    return (
        f"the compiled network is not kept in {path.parent}: {error}. Free space there, make it "
        "writable, or let SAM2_BLOCKS_CACHE name another folder."
    )


def discard_compiled(path: Path, reason: str) -> None:
    """Delete a file that cannot be used; the network is compiled again.

    Args:
        path: the file.
        reason: why not, for the log, which also says if it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)  # another process may have been faster
    except OSError as error:
        LOGGER.warning(
            "the compiled network %s is not used: %s. It cannot be deleted (%s), so delete it, or "
            "let SAM2_BLOCKS_CACHE name another folder.",
            *(path, reason, error.strerror or error),
        )
    else:
        LOGGER.warning("deleted the compiled network %s: %s", path, reason)


def _make_room(folder: Path, nbytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # another process drops files too
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    left = sum(size for _, size, _ in found) + nbytes
    for _, size, path in sorted(found):
        if left <= MAX_BYTES:
            return
        path.unlink(missing_ok=True)
        left -= size

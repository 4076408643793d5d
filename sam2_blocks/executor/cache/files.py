"""Embeddings on disk: one safetensors file each, named by its content, whole or not there.

A file holds the tensors of one embedding as (B, H, W, C), the order they have in memory, and in
its metadata ``identity`` (its name is a hash of it), ``image_hw`` and ``checksum`` (CRC-32 of
everything else). It says nothing about where the picture came from.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sam2_blocks.executor.cache.lru import CacheStats
from sam2_blocks.files.atomic import write_bytes
from sam2_blocks.forks import after_fork
from sam2_blocks.masks.rle import MAX_PIXELS
from sam2_blocks.values import Embedding, ExecutorSpec, Hw

LOGGER = logging.getLogger(__name__)
VERSION = 1  # of the layout above
ENTRY_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
PART_NAME = re.compile(r"\.[0-9a-f]{32}\.safetensors\..*\.part")  # see `write_atomically`
MOST_HEADER_BYTES = 2**20
STALE_AFTER_S = 600
MOST_WAITING = 8
LOOKS_PER_BOUND = 16


class EmbeddingFiles:
    """A folder of embeddings within a bound of bytes; processes may share it, and so may threads.

    Nothing here fails a caller: a file that is damaged or foreign is deleted with a warning, and
    a folder that cannot be written, or a full disk, is warned of once and then only read.

    Args:
        folder: made if missing; files with other names are left alone.
        max_bytes: the files used least recently go first. A process looks at the whole folder
            after writing 1/16 of it, so each further process may exceed it by that much.
        spec: the executor whose embeddings these are.
        made_by: what decides their last digits beside what their keys name.
        shapes: (1, C, H, W) of each tensor that the executor can decode, by name.
        dtype: of these tensors, where it is not the executor's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        spec: ExecutorSpec,
        made_by: str,
        shapes: Mapping[str, Sequence[int]],
        dtype: str = "",
    ) -> None:
        self._dtype = dtype
        self._folder = folder
        self._max_bytes = max_bytes
        self._spec = spec
        self._made_by = made_by
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._most = MOST_HEADER_BYTES + 8 * sum(map(prod, self._shapes.values()))
        self._writable = True
        self._room = 0  # bytes to write before the next look at the folder
        self._stats = CacheStats()
        self._start_writer()
        after_fork(self._start_writer)
        try:
            self._shrink_to(max_bytes)
        except OSError as error:
            self._stop_writing(error)

    def _start_writer(self) -> None:
        """Make what is made of threads; in a forked child anew, whose parent writes its queue."""
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._writer = ThreadPoolExecutor(1, "sam2-blocks-embedding-files")

    def path_of(self, key: str) -> Path:
        """Return where the embedding with this content key is, or would be."""
        return self._folder / _name_of(self._identity(key))

    def read(self, key: str) -> Embedding | None:
        """Return the embedding with this content key, on the CPU and without an ``image_id``."""
        path = self.path_of(key)
        embedding = self._read(path, key)
        if embedding is None:
            self._count(misses=1)
            return None
        with suppress(OSError):  # another process dropped it, or the folder is read-only
            os.utime(path)
        self._count(hits=1)
        return embedding

    def write(self, embedding: Embedding) -> None:
        """Write an embedding beside the caller, who waits only while the queue is full.

        What is queued is written before the interpreter exits.
        """
        if not self._writable:
            return
        self._waiting.acquire()
        try:
            future = self._writer.submit(self._write, embedding)
        except RuntimeError:  # the interpreter is exiting
            self._waiting.release()
        else:
            future.add_done_callback(self._finish)

    def flush(self) -> None:
        """Wait until what is queued is written."""
        self._writer.submit(int).result()

    def stats(self) -> CacheStats:
        """Return the counters; entries and bytes as of the last look, with our own changes."""
        with self._lock:
            return self._stats

    def _identity(self, key: str) -> str:
        return f"v{VERSION}, {self._made_by}, {key}"

    def _read(self, path: Path, key: str) -> Embedding | None:
        try:
            file = read_entry(path, self._most)
            return file.to_embedding(key, self._spec, self._shapes, self._dtype)
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (ValueError, PermissionError) as error:
            self._discard(path, error)
        except OSError as error:
            self._stop_writing(error)
        return None

    def _write(self, embedding: Embedding) -> None:
        path = self.path_of(embedding.key)
        if os.path.lexists(path) or not self._writable:  # another process did, or it is given up
            return
        content = embedding_to_bytes(embedding, self._identity(embedding.key))
        if len(content) > self._max_bytes:
            return
        try:
            self._make_room(len(content))
            write_bytes(path, content)
        except OSError as error:
            self._stop_writing(error)
        else:
            self._count(entries=1, nbytes=len(content))

    def _finish(self, future: Future[None]) -> None:
        self._waiting.release()
        future.result()  # a bug of ours is logged with its traceback

    def _make_room(self, nbytes: int) -> None:
        """Drop files so that one of this size may be added."""
        if nbytes > self._room:
            self._room = max(nbytes, self._max_bytes // LOOKS_PER_BOUND)
            self._shrink_to(self._max_bytes - self._room)
        self._room -= nbytes

    def _shrink_to(self, max_bytes: int) -> None:
        """Look at the folder and drop the files used least recently."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = _scan(self._folder)
        nbytes, dropped = sum(entry.nbytes for entry in entries), 0
        while nbytes > max_bytes:
            entries[dropped].path.unlink(missing_ok=True)
            nbytes -= entries[dropped].nbytes
            dropped += 1
        with self._lock:
            self._stats = replace(self._stats, entries=len(entries) - dropped, nbytes=nbytes)
        self._count(evictions=dropped)

    def _discard(self, path: Path, reason: ValueError | PermissionError) -> None:
        """Delete a file that is not what it should be; the embedding is computed again."""
        try:
            nbytes = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:  # another process was quicker
            return
        except OSError as error:
            self._stop_writing(error)
            return
        self._count(entries=-1, nbytes=-nbytes, evictions=1)
        LOGGER.warning("deleted the cached embedding %s: %s", path, reason)

    def _stop_writing(self, error: OSError) -> None:
        if self._writable:
            self._writable = False
            LOGGER.warning(
                "embeddings are no longer written to %s: %s. "
                "Free space there, make it writable, or choose another cache_dir.",
                self._folder,
                error,
            )

    def _count(self, **changes: int) -> None:
        with self._lock:
            now = {name: getattr(self._stats, name) + by for name, by in changes.items()}
            self._stats = replace(self._stats, **now)


class Entry(NamedTuple):
    """The content of one file, as `read_entry` verified it.

    Attributes:
        tensors: (1, H, W, C) by name: ``image_embed``, ``high_res_feats.0``, ….
        metadata: ``identity`` and ``image_hw``.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def to_embedding(
        self, key: str, spec: ExecutorSpec, shapes: Mapping[str, tuple[int, ...]], dtype: str = ""
    ) -> Embedding:
        """Make the embedding with this content key.

        A checksum is no signature: who can write here can make one. So nothing is believed.

        Raises:
            ValueError: if it has other tensors, is of another dtype, or its picture has no size.
        """
        dtype = dtype or spec.dtype
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in self.tensors.values()}
        if dtypes != {dtype}:
            raise ValueError(f"it holds {', '.join(sorted(dtypes))}, expected {dtype}")
        if any(tensor.ndim != 4 for tensor in self.tensors.values()):
            raise ValueError("it holds tensors that have not four axes")
        nchw = {name: tensor.permute(0, 3, 1, 2) for name, tensor in self.tensors.items()}
        found = {name: tuple(tensor.shape) for name, tensor in nchw.items()}
        if found != shapes:
            raise ValueError(f"it holds tensors {found}, expected {dict(shapes)}")
        image_hw = _parse_hw(self.metadata.get("image_hw", ""))
        return Embedding(
            image_embed=nchw.pop("image_embed"),
            high_res_feats=tuple(nchw[name] for name in sorted(nchw)),
            image_hw=image_hw,
            image_id="",
            key=key,
            spec=spec,
        )


def embedding_to_bytes(embedding: Embedding, identity: str) -> bytes:
    """Serialise an embedding; see the top of this module.

    Args:
        embedding: on any device.
        identity: the string whose hash names the file.
    """
    nchw = embedding.tensors
    nhwc = {name: level.cpu().permute(0, 2, 3, 1).contiguous() for name, level in nchw.items()}
    height, width = embedding.image_hw
    metadata = {"identity": identity, "image_hw": f"{height} {width}"}
    return save(nhwc, {**metadata, "checksum": _checksum_of(nhwc, metadata)})


def read_entry(path: Path, max_bytes: int = 2**40) -> Entry:
    """Read one file and verify it.

    Args:
        path: where it is.
        max_bytes: the longest it may be.

    Raises:
        ValueError: if it is not whole, too long, no file, or not the one its name stands for.
        OSError: if it cannot be read.
    """
    content = _read_file(path, max_bytes)  # a copy: a mapped file could change after verifying
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        # Whatever torch makes of a dtype or a shape it does not have.
        raise ValueError(f"it is not a whole safetensors file ({error})") from error
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    if metadata.pop("checksum", None) != _checksum_of(tensors, metadata):
        raise ValueError("its content is not what was written (the checksum differs)")
    identity = metadata.get("identity", "")
    if _name_of(identity) != path.name:
        raise ValueError(f"it is another embedding ({identity[:200]})")
    return Entry(tensors, metadata)


def _read_file(path: Path, max_bytes: int) -> bytes:
    """Read a file, and nothing that never ends, never begins or fills the memory."""
    # A pipe would wait for who writes into it, and a link may lead anywhere; not all systems have
    # either.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(str(path))
    if stat.S_ISLNK(mode):
        raise ValueError("it is a link, not a file")
    with open(os.open(path, flags | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_size > max_bytes:
            raise ValueError(f"it has {found.st_size} bytes, at most {max_bytes} were expected")
        return file.read(found.st_size)


def _parse_hw(text: str) -> Hw:
    sides = text.split()
    if len(sides) == 2 and all(side.isdecimal() and len(side) < 11 for side in sides):
        height, width = map(int, sides)
        if 0 < height * width <= MAX_PIXELS:
            return height, width
    raise ValueError(f"it is of a picture of {text[:50]!r} pixels, expected a height and a width")


def _name_of(identity: str) -> str:
    return blake2b(identity.encode(), digest_size=16).hexdigest() + ".safetensors"


def _checksum_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of names, dtypes, shapes, values and metadata."""
    layout = {name: f"{tensor.dtype} {[*tensor.shape]}" for name, tensor in tensors.items()}
    crc = zlib.crc32(json.dumps([layout, metadata], sort_keys=True).encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


class _ScannedFile(NamedTuple):
    used_ns: int
    nbytes: int
    path: Path


def _scan(folder: Path) -> list[_ScannedFile]:
    """List the embeddings, least recently used first; remove what killed writers left."""
    found = []
    for item in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process drops files too
            about = item.stat(follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):  # somebody's; it is never read either
                continue
            if ENTRY_NAME.fullmatch(item.name):
                found.append(_ScannedFile(about.st_mtime_ns, about.st_size, Path(item.path)))
            elif PART_NAME.fullmatch(item.name) and time.time() - about.st_mtime > STALE_AFTER_S:
                os.unlink(item.path)
    return sorted(found)

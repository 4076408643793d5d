"""A folder that results go to, on this machine or wherever fsspec reaches; files are whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from filelock import FileLock, Timeout

from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import write_bytes
from sam2_blocks.runs.sources.addresses import is_remote, open_system, with_retries

WHOLE_PUTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "oss", "oci", "hf", "memory"})
"""Stores where an object is there when all of it is there; elsewhere it is written and moved."""


class Store(Protocol):
    """A flat folder of files."""

    address: str

    def sizes(self) -> Mapping[str, int]:
        """Names of the files, and their sizes in bytes."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, in place of one of that name."""
        ...

    def note(self, name: str, content: bytes) -> None:
        """Write a small file that counts if this process dies, and need not survive the machine.

        It begins with the content; what is after its last line end is of no account.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def lock(self, name: str) -> None:
        """Keep other runs out, where the store can.

        Raises:
            UsageError: if another one is in.
        """
        ...

    def unlock(self) -> None:
        """Let other runs in."""
        ...


class LocalStore:
    """A folder of this machine.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder
        self._lock: FileLock | None = None

    def sizes(self) -> Mapping[str, int]:
        """See `Store`."""
        if not self._folder.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in self._folder.iterdir() if path.is_file()}

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        return (self._folder / name).open("rb")

    def write(self, name: str, content: bytes) -> None:
        """See `Store`."""
        write_bytes(self._folder / name, content)

    def note(self, name: str, content: bytes) -> None:
        """See `Store`; one call of the system writes it, which nobody can kill half-way."""
        file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(file, content)
            os.ftruncate(file, len(content))
        finally:
            os.close(file)

    def delete(self, name: str) -> None:
        """See `Store`."""
        (self._folder / name).unlink(missing_ok=True)

    def lock(self, name: str) -> None:
        """See `Store`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / name)
            self._lock.acquire(timeout=0)
        except Timeout:
            self._lock = None
            raise UsageError(
                f"{self.address}: another run is writing there. Wait for it, or choose another "
                "--out."
            ) from None
        except OSError as error:
            raise UsageError(f"cannot write to the folder {self.address!r}: {error}.") from error

    def unlock(self) -> None:
        """See `Store`."""
        if self._lock is not None:
            with suppress(OSError):  # some systems keep it while it is held
                Path(self._lock.lock_file).unlink()
            self._lock.release()
            self._lock = None


class RemoteStore:
    """A folder in a file system that fsspec knows; calls that fail for now are made again.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        self.address = url
        self._system, self._root = open_system(url)
        protocol = self._system.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._puts_whole = bool(names & WHOLE_PUTS)

    def sizes(self) -> Mapping[str, int]:
        """See `Store`."""
        self._system.invalidate_cache()
        try:
            found = with_retries(lambda: self._system.ls(self._root, detail=True))
        except FileNotFoundError:
            return {}
        files = (entry for entry in found if entry["type"] == "file")
        return {entry["name"].rpartition("/")[2]: int(entry["size"] or 0) for entry in files}

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        try:
            return cast(bytes, with_retries(lambda: self._system.cat_file(self._path(name))))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        return cast(BinaryIO, with_retries(lambda: self._system.open(self._path(name), "rb")))

    def write(self, name: str, content: bytes) -> None:
        """See `Store`."""
        with_retries(lambda: self._write(name, content))

    def note(self, name: str, content: bytes) -> None:
        """See `Store`."""
        self.write(name, content)

    def delete(self, name: str) -> None:
        """See `Store`."""
        with suppress(FileNotFoundError):
            with_retries(lambda: self._system.rm_file(self._path(name)))

    def lock(self, name: str) -> None:
        """Do nothing: who writes is in the manifest, see `ShardFiles`."""

    def unlock(self) -> None:
        """Do nothing."""

    def _write(self, name: str, content: bytes) -> None:
        if self._puts_whole:
            self._system.pipe_file(self._path(name), content)
            return
        self._system.makedirs(self._root, exist_ok=True)
        part = self._path(f".{name}.{secrets.token_hex(4)}.part")
        try:
            self._system.pipe_file(part, content)
            self._system.mv(part, self._path(name))
        except BaseException:
            with suppress(Exception):  # nothing is left behind, if that can be helped
                self._system.rm_file(part)
            raise

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def open_store(address: Any) -> Store:
    """Open the folder at a path or URL."""
    text = str(address)
    return RemoteStore(text) if is_remote(text) else LocalStore(Path(text))

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sam2_blocks.executor.cache import compiled
from sam2_blocks.executor.cache.compiled import (
    check_writable,
    compiled_path,
    map_compiled,
    page_out,
    write_compiled,
)
from sam2_blocks.executor.weights.download import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "openvino"


def test_what_was_written_is_read(folder):
    path = compiled_path("encoder")
    assert path.parent == folder
    assert map_compiled(path) is None
    write_compiled(path, b"exported")
    mapped = map_compiled(path)
    assert mapped.tobytes() == b"exported"
    mapped[:] = 0  # what is written stays here
    assert map_compiled(path).tobytes() == b"exported"
    assert compiled_path("decoder") != path


def test_a_folder_is_tried_before_anything_is_written(folder):
    path = compiled_path("encoder")
    check_writable(path)
    assert not list(folder.iterdir())
    folder.rmdir()
    folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="openvino"):
        check_writable(path)


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 40])
def test_a_damaged_file_is_deleted_and_said(caplog, damage):
    path = compiled_path("encoder")
    write_compiled(path, b"exported")
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert map_compiled(path) is None
    assert not path.exists()
    assert "the checksum differs" in caplog.text


def test_a_damaged_file_that_cannot_be_deleted_is_not_said_to_be(caplog, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    path = compiled_path("encoder")
    write_compiled(path, b"exported")
    path.write_bytes(b"x" * 40)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert map_compiled(path) is None
    [record] = caplog.records
    assert record.message.startswith(f"the compiled network {path} is not used: its content")
    assert "cannot be deleted (Permission denied), so delete it, or let SAM2_BLOCKS" in caplog.text


def test_a_full_disk_leaves_what_was_there_and_nothing_half(caplog, monkeypatch, folder):
    path = compiled_path("encoder")
    write_compiled(path, b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_compiled(path, b"after")
    assert "No space left on device" in caplog.text
    assert "Free space there" in caplog.text
    assert map_compiled(path).tobytes() == b"before"
    assert list(folder.iterdir()) == [path]


def test_the_files_used_least_recently_go_first(monkeypatch):
    first, second, third = map(compiled_path, "abc")
    write_compiled(first, bytes(100))
    write_compiled(second, bytes(100))
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert map_compiled(first) is not None  # used just now
    monkeypatch.setattr(compiled, "MAX_BYTES", 300)
    write_compiled(third, bytes(150))
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    monkeypatch.setattr(compiled, "MAX_BYTES", 10)
    write_compiled(second, bytes(11))
    assert not second.exists()


def test_a_folder_that_cannot_be_written_is_only_said(caplog, folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    write_compiled(compiled_path("encoder"), b"exported")
    assert "is not kept in" in caplog.text
    assert "let SAM2_BLOCKS_CACHE name another folder" in caplog.text


def resident_kib(path) -> int:
    """What Linux counts of a mapped file as this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = 0
    for line in lines:
        if line.endswith(str(path)):
            found += next(int(row.split()[1]) for row in lines if row.startswith("Rss:"))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux counts memory")
def test_what_is_paged_out_is_no_memory_of_the_process_and_comes_again():
    path = compiled_path("encoder")
    content = os.urandom(2**22)
    write_compiled(path, content)
    mapped = map_compiled(path)
    assert resident_kib(path) >= 2**12
    page_out(mapped)
    assert resident_kib(path) < 2**12
    assert mapped.tobytes() == content
    page_out(np.zeros(8, np.uint8))  # what is no mapping

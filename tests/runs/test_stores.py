from __future__ import annotations

import fsspec
import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.runs import stores
from sam2_blocks.runs.stores import LocalStore, RemoteStore, open_store


@pytest.fixture(params=["local", "memory", "moved"])
def store(request, tmp_path):
    """A folder of this machine, an object store, and one whose files are written and moved."""
    if request.param == "local":
        return open_store(tmp_path / "out")
    if request.param == "moved":
        return RemoteStore(f"file://{tmp_path}/deep/out")
    fsspec.filesystem("memory").store.clear()
    return open_store("memory://out")


def test_files_are_written_read_listed_and_removed(store):
    assert store.sizes() == {}
    assert store.read("a.json") is None
    store.write("a.json", b"one")
    store.write("a.json", b"three")
    store.write("b.json", b"")
    assert store.sizes() == {"a.json": 5, "b.json": 0}
    assert store.read("a.json") == b"three"
    with store.open("a.json") as file:
        assert file.read(2) == b"th"
    store.delete("a.json")
    store.delete("a.json")
    assert set(store.sizes()) == {"b.json"}


def test_a_file_that_cannot_be_moved_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2_blocks.runs.sources.addresses.time.sleep", lambda _: None)
    store = RemoteStore(f"file://{tmp_path}/out")
    store.write("a", b"old")
    monkeypatch.setattr(store._system, "mv", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert set(store.sizes()) == {"a"}


def test_a_bucket_that_is_busy_is_asked_again(monkeypatch):
    monkeypatch.setattr("sam2_blocks.runs.sources.addresses.time.sleep", lambda _: None)
    store, answers = RemoteStore("memory://out"), [OSError("503"), OSError("503"), OSError("503")]
    write = store._system.pipe_file

    def pipe(*given):
        if answers:
            raise answers.pop()
        return write(*given)

    monkeypatch.setattr(store._system, "pipe_file", pipe)
    store.write("a", b"content")
    assert store.read("a") == b"content"


def test_one_run_a_lock(tmp_path):
    first, second = LocalStore(tmp_path), LocalStore(tmp_path)
    first.lock(".lock-1-of-2")
    with pytest.raises(UsageError, match="another run is writing there"):
        second.lock(".lock-1-of-2")
    second.lock(".lock-2-of-2")
    first.unlock()
    LocalStore(tmp_path).lock(".lock-1-of-2")
    assert stores.open_store(tmp_path).address == str(tmp_path)

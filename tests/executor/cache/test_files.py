from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from sam2_blocks.executor.cache import files as embedding_files
from sam2_blocks.executor.cache.files import (
    ENTRY_NAME,
    STALE_AFTER_S,
    EmbeddingFiles,
    embedding_to_bytes,
    read_entry,
)
from sam2_blocks.values import Embedding, ExecutorSpec
from tests.conftest import ROOT

SPEC = ExecutorSpec("nano", "cpu", "float32")
MADE_BY = "torch 0 on a test"
SHAPES = {
    "image_embed": (1, 8, 4, 4),
    "high_res_feats.0": (1, 2, 16, 16),
    "high_res_feats.1": (1, 4, 8, 8),
}
CHILD = "import sys; from tests.executor.cache.test_files import child; child(*sys.argv[1:])"


def embedding(seed: int, dtype: torch.dtype = torch.float32) -> Embedding:
    """Small, in the layout of real ones; its values follow from its seed."""
    generator = torch.Generator().manual_seed(seed)
    image_embed, *high_res_feats = (
        torch.randn(shape, generator=generator).to(dtype, memory_format=torch.channels_last)
        for shape in SHAPES.values()
    )
    return Embedding(image_embed, tuple(high_res_feats), (30, 40), "name", f"model/{seed}", SPEC)


def open_files(folder: Path, max_bytes: int = 2**30) -> EmbeddingFiles:
    return EmbeddingFiles(folder, max_bytes=max_bytes, spec=SPEC, made_by=MADE_BY, shapes=SHAPES)


def write(files: EmbeddingFiles, *seeds: int) -> None:
    for seed in seeds:
        files.write(embedding(seed))
        files.flush()


def assert_same(found: Embedding | None, expected: Embedding) -> None:
    assert found is not None
    assert (found.image_hw, found.key, found.spec) == (
        expected.image_hw,
        expected.key,
        expected.spec,
    )
    levels = zip(
        (found.image_embed, *found.high_res_feats),
        (expected.image_embed, *expected.high_res_feats),
        strict=True,
    )
    for one, other in levels:
        assert torch.equal(one, other)
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        assert one.untyped_storage().nbytes() == one.nbytes


@pytest.fixture(scope="module")
def entry_bytes(tmp_path_factory) -> int:
    """Size of the file of one `embedding`."""
    files = open_files(tmp_path_factory.mktemp("one"))
    write(files, 0)
    return files.stats().nbytes


def age(files: EmbeddingFiles, seed: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(files.path_of(f"model/{seed}"), (then, then))


def held(files: EmbeddingFiles, *seeds: int) -> set[int]:
    return {seed for seed in seeds if files.path_of(f"model/{seed}").exists()}


def test_what_is_read_is_bit_for_bit_what_was_written(tmp_path):
    write(open_files(tmp_path), 1, 2)
    files = open_files(tmp_path)  # as the next process does
    assert_same(files.read("model/1"), embedding(1))
    assert_same(files.read("model/2"), embedding(2))
    assert files.read("model/3") is None
    stats = files.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 1, 2)
    assert stats.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_half_precision_is_kept(tmp_path):
    spec = SPEC._replace(dtype="bfloat16")
    files = EmbeddingFiles(tmp_path, max_bytes=2**20, spec=spec, made_by=MADE_BY, shapes=SHAPES)
    files.write(embedding(1, torch.bfloat16))
    files.flush()
    found = files.read("model/1")
    assert found is not None
    assert torch.equal(found.image_embed, embedding(1, torch.bfloat16).image_embed)


def test_keys_with_slashes_become_plain_names_and_pictures_stay_anonymous(tmp_path):
    write(open_files(tmp_path), 1)
    [path] = tmp_path.iterdir()
    assert ENTRY_NAME.fullmatch(path.name)
    assert set(read_entry(path).metadata) == {"identity", "image_hw"}
    assert b'"name"' not in path.read_bytes()


def test_what_rounds_otherwise_is_another_embedding(tmp_path):
    write(open_files(tmp_path), 1)
    others = EmbeddingFiles(
        tmp_path, max_bytes=2**30, spec=SPEC, made_by="another GPU", shapes=SHAPES
    )
    assert others.read("model/1") is None


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    write(open_files(tmp_path), 1)
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(header), *range(header, len(content), 97), len(content) - 1]:
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checksum|whole safetensors"):
            read_entry(path)
        content[position] ^= 1
    path.write_bytes(content)
    read_entry(path)


def truncated(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    return b""


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def foreign(content: bytes) -> bytes:
    return save({"weight": torch.zeros(3)})


def of_a_dtype_torch_lacks(content: bytes) -> bytes:
    header = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"123"


def of_another_picture(content: bytes) -> bytes:
    return embedding_to_bytes(embedding(2), f"v1, {MADE_BY}, model/2")


def of_another_dtype(content: bytes) -> bytes:
    return embedding_to_bytes(embedding(1, torch.float16), f"v1, {MADE_BY}, model/1")


def forged(tensors=None, **metadata):
    """A file with a right checksum, made by somebody who knows how."""

    def forge(content: bytes) -> bytes:
        nhwc = tensors or {name: torch.zeros((1, *s[2:], s[1])) for name, s in SHAPES.items()}
        said = {"identity": f"v1, {MADE_BY}, model/1", "image_hw": "30 40"} | metadata
        said = {name: text for name, text in said.items() if text is not None}
        checksum = embedding_files._checksum_of(nhwc, said)
        return save(nhwc, {**said, "checksum": checksum})

    return forge


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncated, "not a whole safetensors file"),
        (empty, "not a whole safetensors file"),
        (flipped, "the checksum differs"),
        (foreign, "the checksum differs"),
        (of_a_dtype_torch_lacks, "not a whole safetensors file"),
        (of_another_picture, "another embedding .*model/2"),
        (of_another_dtype, "holds float16, expected float32"),
        (forged({"weight": torch.zeros(3)}), "tensors that have not four axes"),
        (forged({"weight": torch.zeros(1, 4, 4, 8)}), "tensors .*weight.*, expected .*image_embed"),
        (
            forged({name: torch.zeros((1, 4, 4, s[1])) for name, s in SHAPES.items()}),
            r"high_res_feats.1': \(1, 4, 4, 4\).*, expected",
        ),
        (forged(identity=None), "another embedding"),
        (forged(image_hw=None), "a picture of '' pixels"),
        (forged(image_hw="30"), "a picture of '30' pixels"),
        (forged(image_hw="-30 40"), "a picture of '-30 40' pixels"),
        (forged(image_hw="0 40"), "a picture of '0 40' pixels"),
        (forged(image_hw="100000 100000"), "a picture of '100000 100000' pixels"),
        (forged(image_hw=f"{'9' * 5000} 1"), "a picture of '9999"),
    ],
)
def test_a_damaged_file_is_deleted_and_can_be_written_again(tmp_path, damage, reason, caplog):
    files = open_files(tmp_path)
    write(files, 1)
    path = files.path_of("model/1")
    path.write_bytes(damage(path.read_bytes()))
    assert files.read("model/1") is None
    assert re.search(f"deleted the cached embedding .*{reason}", caplog.text)
    assert not path.exists()
    stats = files.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.entries) == (0, 1, 1, 0)
    write(files, 1)
    assert_same(files.read("model/1"), embedding(1))


def test_the_file_used_least_recently_goes_first(tmp_path, entry_bytes):
    files = open_files(tmp_path, max_bytes=3 * entry_bytes)
    write(files, 1, 2, 3)
    for seed, seconds in ((1, 30), (2, 20), (3, 10)):
        age(files, seed, seconds)
    files.read("model/1")
    write(files, 4)
    assert held(files, 1, 2, 3, 4) == {1, 3, 4}
    stats = files.stats()
    assert (stats.evictions, stats.entries, stats.nbytes) == (1, 3, 3 * entry_bytes)


def test_bytes_stay_within_the_bound_whoever_wrote_them(tmp_path, entry_bytes):
    bound = 40 * entry_bytes
    one, other = open_files(tmp_path, bound), open_files(tmp_path, bound)
    for seed in range(60):
        write(one if seed % 2 else other, seed)
        on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert on_disk <= bound * (1 + 1 / embedding_files.LOOKS_PER_BOUND)
    assert on_disk >= bound * 3 / 4
    assert open_files(tmp_path, 2 * entry_bytes).stats().entries == 2


def test_what_is_larger_than_the_bound_is_not_written(tmp_path, entry_bytes):
    files = open_files(tmp_path, max_bytes=entry_bytes)
    write(files, 1)
    files.write(replace(embedding(2), image_embed=torch.zeros((1, 8, 8, 8))))
    files.flush()
    assert held(files, 1, 2) == {1}


def test_other_files_in_the_folder_are_left_alone(tmp_path, entry_bytes):
    (tmp_path / "nano.safetensors").write_bytes(bytes(10 * entry_bytes))
    files = open_files(tmp_path, max_bytes=entry_bytes)
    write(files, 1, 2)
    assert files.stats().entries == 1
    assert (tmp_path / "nano.safetensors").exists()


def test_what_killed_writers_left_is_removed_once_it_is_old(tmp_path):
    name = open_files(tmp_path).path_of("model/1").name
    old, new, else_s = (tmp_path / n for n in (f".{name}.1a.part", f".{name}.2b.part", ".x.part"))
    for path in (old, new, else_s):
        path.write_bytes(b"half")
    for path in (old, else_s):
        os.utime(path, (0, time.time() - 2 * STALE_AFTER_S))
    files = open_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, else_s])
    assert files.stats().entries == 0


def test_a_folder_that_cannot_be_made_is_warned_of_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    files = open_files(tmp_path / "file" / "folder")
    assert re.search("no longer written to .*file.*choose another cache_dir", caplog.text)
    write(files, 1, 2)
    assert len(caplog.records) == 1
    assert files.read("model/1") is None


def test_a_full_disk_ends_writing_and_nothing_else(tmp_path, monkeypatch, caplog):
    files = open_files(tmp_path)
    write(files, 1)

    def refuse(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(embedding_files, "write_bytes", refuse)
    write(files, 2)
    assert re.search("No space left on device", caplog.text)
    assert len(caplog.records) == 1
    monkeypatch.undo()
    write(files, 3)
    assert held(files, 1, 2, 3) == {1}
    assert_same(files.read("model/1"), embedding(1))


def test_a_folder_in_the_place_of_a_file_is_a_miss_and_stays(tmp_path, caplog):
    files = open_files(tmp_path, max_bytes=1)  # more is to be dropped than may be
    files.path_of("model/1").mkdir()
    assert files.read("model/1") is None
    assert files.stats().misses == 1
    files = open_files(tmp_path)
    write(files, 1, 2)
    assert_same(files.read("model/2"), embedding(2))
    assert not caplog.text


def _pipe(path):
    os.mkfifo(path)


def _endless(path):
    path.symlink_to("/dev/zero")


def _nowhere(path):
    path.symlink_to("nowhere")


def _sparse(path):
    with path.open("wb") as file:
        file.truncate(2**42)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in folders")
@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (_pipe, "it is no file"),
        (_endless, "it is a link"),
        (_nowhere, "it is a link"),
        (_sparse, "it has 4398046511104 bytes, at most"),
    ],
)
def test_what_never_ends_is_no_embedding(tmp_path, forge, reason, caplog):
    files = open_files(tmp_path)
    path = files.path_of("model/1")
    forge(path)
    assert files.read("model/1") is None
    assert re.search(f"deleted the cached embedding .*{reason}", caplog.text)
    assert not os.path.lexists(path)
    write(files, 1)
    assert_same(files.read("model/1"), embedding(1))


def test_writing_waits_for_a_place_in_the_queue(tmp_path, monkeypatch):
    files, go = open_files(tmp_path), threading.Event()
    write_bytes = embedding_files.write_bytes
    monkeypatch.setattr(
        embedding_files, "write_bytes", lambda *args: go.wait(120) and write_bytes(*args)
    )
    for seed in range(embedding_files.MOST_WAITING):
        files.write(embedding(seed))
    late = threading.Thread(target=files.write, args=(embedding(99),))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    go.set()
    late.join(120)
    assert not late.is_alive()
    files.flush()
    assert files.stats().entries == embedding_files.MOST_WAITING + 1


def child(folder: str, action: str, count: str) -> None:
    """What the child processes below do."""
    files = open_files(Path(folder))
    for seed in range(int(count)):
        files.write(embedding(seed))
        if action == "reports":
            print(seed, flush=True)
    if action == "dies writing":
        files.flush()
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        files.write(embedding(10_000))
    if action == "leaves a thread":

        def finish_late() -> None:
            while threading.main_thread().is_alive():
                time.sleep(0.01)
            files.write(embedding(10_000))
            print("went on", flush=True)

        threading.Thread(target=finish_late).start()


def start(folder: Path, action: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder), action, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_what_is_queued_is_written_before_a_process_exits(tmp_path):
    out, err = start(tmp_path, "leaves a thread", 20).communicate(timeout=300)
    assert (out.strip(), err) == ("went on", "")
    files = open_files(tmp_path)
    for seed in range(20):
        assert_same(files.read(f"model/{seed}"), embedding(seed))


def test_processes_may_write_the_same_embeddings_at_once(tmp_path):
    for process in [start(tmp_path, "writes", 50) for _ in range(2)]:
        assert process.communicate(timeout=300) == ("", "")
    files = open_files(tmp_path)
    assert files.stats().entries == 50
    for seed in range(50):
        assert_same(files.read(f"model/{seed}"), embedding(seed))


def test_a_writer_killed_at_any_moment_leaves_nothing_wrong(tmp_path):
    process = start(tmp_path, "reports", 1_000_000)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    files = open_files(tmp_path)
    entries = [path for path in tmp_path.iterdir() if ENTRY_NAME.fullmatch(path.name)]
    assert files.stats().entries == len(entries) >= 20 - embedding_files.MOST_WAITING - 1
    for path in entries:
        seed = int(read_entry(path).metadata["identity"].rpartition("/")[2])
        assert_same(files.read(f"model/{seed}"), embedding(seed))


def test_what_a_killed_writer_had_not_finished_does_not_count(tmp_path):
    process = start(tmp_path, "dies writing", 3)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    [half] = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
    files = open_files(tmp_path)
    assert files.stats().entries == 3
    assert files.read("model/10000") is None
    os.utime(half, (0, 0))
    open_files(tmp_path)
    assert not half.exists()


def test_threads_read_and_write_while_files_are_dropped(tmp_path, entry_bytes):
    files = open_files(tmp_path, max_bytes=5 * entry_bytes)

    def work(step: int) -> None:
        for turn in range(40):
            seed = turn * step % 10
            found = files.read(f"model/{seed}")
            if found is None:
                files.write(embedding(seed))
            else:
                assert_same(found, embedding(seed))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (1, 3, 7, 9)))
    files.flush()
    stats = files.stats()
    assert stats.hits + stats.misses == 160
    assert stats.entries == len(list(tmp_path.iterdir())) <= 5

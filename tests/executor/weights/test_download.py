"""Downloads against a server on this machine that can be made to misbehave."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights import download as weights
from sam2_blocks.executor.weights.catalogue import ModelSpec
from sam2_blocks.executor.weights.download import ensure_weights, verify, weights_path

CONTENT = bytes(range(256)) * 40_000  # 10 MB


class Server(ThreadingHTTPServer):
    """Serves CONTENT and remembers the ranges asked for.

    `cuts` lists after how many bytes to hang up, one entry for each request, then none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.honours_ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = 0
        if asked and self.server.honours_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        rest = CONTENT[start:]
        self.wfile.write(rest[: self.server.cuts.pop(0)] if self.server.cuts else rest)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def spec(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    monkeypatch.setenv("SAM2_BLOCKS_CACHE", str(tmp_path))
    monkeypatch.delenv("SAM2_BLOCKS_OFFLINE", raising=False)
    return ModelSpec(
        name="test/model",
        config="unused.yaml",
        url=f"http://127.0.0.1:{server.server_port}/model.pt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        nbytes=len(CONTENT),
    )


def files_left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_download_once_with_progress(spec, server, tmp_path):
    seen: list[tuple[int, int | None]] = []
    path = ensure_weights(spec, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "test-model" / "model.pt"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert ensure_weights(spec, offline=True) == path
    assert verify(spec) == path
    assert server.ranges == [None]


def test_a_cut_connection_is_resumed(spec, server, tmp_path):
    server.cuts = [3_000_000, 2_000_000]
    assert ensure_weights(spec).read_bytes() == CONTENT
    assert server.ranges[0] is None
    resumed = [int(asked.removeprefix("bytes=")[:-1]) for asked in server.ranges[1:]]
    assert 0 < resumed[0] <= 3_000_000 < resumed[1] <= 5_000_000
    assert files_left(tmp_path) == ["model.pt"]


def test_the_next_call_continues_where_the_last_one_gave_up(spec, server, tmp_path):
    server.cuts = [2_000_000] * weights.ATTEMPTS
    with pytest.raises(ModelError, match=r"could not download 'test/model' .* to continue"):
        ensure_weights(spec)
    assert files_left(tmp_path) == ["model.pt.part"]
    assert ensure_weights(spec).read_bytes() == CONTENT
    assert server.ranges[-1] is not None


def test_a_server_without_ranges_starts_afresh(spec, server):
    server.cuts, server.honours_ranges = [3_000_000], False
    assert ensure_weights(spec).read_bytes() == CONTENT


def test_a_partial_file_that_is_already_whole_is_taken(spec):
    part = weights_path(spec).with_suffix(".pt.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert ensure_weights(spec).read_bytes() == CONTENT
    assert not part.exists()


def test_a_wrong_hash_leaves_nothing_behind(spec, tmp_path):
    with pytest.raises(ModelError, match=r"not the published file of 'test/model'.*expected 0000"):
        ensure_weights(replace(spec, sha256="0" * 64))
    assert files_left(tmp_path) == []


def test_a_wrong_size_leaves_nothing_behind(spec, tmp_path):
    with pytest.raises(ModelError, match="has 10240000 bytes, but 'test/model' has 7"):
        ensure_weights(replace(spec, nbytes=7))
    assert files_left(tmp_path) == []


def test_unknown_sizes_are_not_checked(spec):
    assert ensure_weights(replace(spec, nbytes=None)).exists()


def test_offline_tells_what_to_do(spec, server, monkeypatch):
    expected = r"'test/model' are not on this machine .*model.*models download test/model"
    with pytest.raises(ModelError, match=expected):
        ensure_weights(spec, offline=True)
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    with pytest.raises(ModelError, match=expected):
        ensure_weights(spec)
    assert server.ranges == []


def test_no_server_tells_what_to_do(spec):
    gone = replace(spec, url="http://127.0.0.1:9/model.pt")
    with pytest.raises(ModelError, match=r"could not download 'test/model' .* place the file at"):
        ensure_weights(gone)


def test_a_full_disk_leaves_no_half_file(spec, tmp_path, monkeypatch):
    def no_space(*args: object) -> None:
        (tmp_path / "test-model" / "model.pt.part").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_append_rest", no_space)
    with pytest.raises(ModelError, match=r"could not write .*: No space left on device"):
        ensure_weights(spec)
    assert files_left(tmp_path) == []


def test_verify_finds_damage_and_absence(spec):
    with pytest.raises(ModelError, match=r"not at .* models download test/model"):
        verify(spec)
    path = ensure_weights(spec)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ModelError, match="not the published file"):
        verify(spec)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match="has 10239999 bytes"):
        ensure_weights(spec)


def test_two_processes_download_once(spec, server):
    script = (
        "import sys; from sam2_blocks.executor.weights.catalogue import ModelSpec;"
        "from sam2_blocks.executor.weights.download import ensure_weights;"
        "name, config, url, sha256 = sys.argv[1:5];"
        "ensure_weights(ModelSpec(name=name, config=config, url=url, sha256=sha256))"
    )
    arguments = [spec.name, spec.config, spec.url, spec.sha256]
    processes = [subprocess.Popen([sys.executable, "-c", script, *arguments]) for _ in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    assert server.ranges == [None]

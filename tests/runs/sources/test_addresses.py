from __future__ import annotations

import http.server
import sys
import threading

import pytest

from sam2_blocks.errors import ImageError, MissingExtraError, UsageError
from sam2_blocks.runs.sources import addresses
from sam2_blocks.runs.sources.addresses import (
    join,
    open_binary,
    parent_of,
    read_bytes,
    suffix_of,
    with_retries,
)


@pytest.fixture
def pauses(monkeypatch):
    taken = []
    monkeypatch.setattr(addresses.time, "sleep", taken.append)
    return taken


@pytest.fixture
def server(monkeypatch):
    """A web server that gives the statuses it is told to, then 200."""
    statuses = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()
            self.wfile.write(b"content")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("SAM2_BLOCKS_ALLOW_PRIVATE_URLS", "1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/a.jpg", statuses
        running.shutdown()
        thread.join()


def test_a_server_that_is_busy_is_asked_again(server, pauses):
    url, statuses = server
    statuses += [503, 503, 503]
    assert read_bytes(url) == b"content"
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    statuses += [503] * 4
    with pytest.raises(ImageError, match=r"a\.jpg: '127\.0\.0\.1' answered with status 503"):
        read_bytes(url)
    statuses += [404]
    pauses.clear()
    with pytest.raises(ImageError, match="status 404"):
        read_bytes(url)
    assert pauses == []


def test_the_web_is_guarded(server, monkeypatch, pauses):
    monkeypatch.delenv("SAM2_BLOCKS_ALLOW_PRIVATE_URLS")
    with pytest.raises(
        ImageError, match=r"http.*: leads to .* not public. Set SAM2_BLOCKS_ALLOW_PRIVATE_URLS=1"
    ):
        read_bytes(server[0])


def test_what_is_not_there_is_not_asked_for_again(memory, pauses):
    with pytest.raises(ImageError, match=r"memory://gone\.png: no such file"):
        read_bytes("memory://gone.png")
    with pytest.raises(UsageError, match=r"gone\.csv: cannot be read"):
        open_binary("memory://gone.csv")
    assert pauses == []


def test_a_store_that_fails_for_now_is_asked_again():
    answers = [TimeoutError("busy"), OSError("busy"), "content"]
    waited = []

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_retries(ask, pause_s=1, sleep=waited.append) == "content"
    assert 1 <= waited[0] <= 1.5
    assert 2 <= waited[1] <= 3
    answers += [OSError("busy")] * 4
    with pytest.raises(OSError, match="busy"):
        with_retries(ask, sleep=waited.append)
    assert answers == []


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[remote\]'.*gcsfs"):
        read_bytes("gs://bucket/a.jpg")


def test_addresses_are_put_together():
    assert join("s3://b/in", "a.png") == "s3://b/in/a.png"
    assert join("s3://b/in", "gs://c/a.png") == "gs://c/a.png"
    assert join("", "a.png") == "a.png"
    assert parent_of("s3://b/in/t.csv") == "s3://b/in"
    assert parent_of("zip://t.csv::s3://b/a.zip") == ""
    assert suffix_of("https://x.org/t.CSV?v=1.2") == ".csv"
    assert suffix_of("zip://t.jsonl::s3://b/a.zip") == ".jsonl"

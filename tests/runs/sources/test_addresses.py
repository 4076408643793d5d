from __future__ import annotations

import http.server
import json
import sys
import threading

import pytest

from sam2_blocks.errors import ImageError, MissingExtraError, UsageError
from sam2_blocks.runs.opening import open_source
from sam2_blocks.runs.sources import addresses
from sam2_blocks.runs.sources.addresses import (
    join,
    open_binary,
    parent_of,
    read_bytes,
    seen_from,
    suffix_of,
    tidy,
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


def test_a_path_is_seen_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert seen_from("out/deep", "in/a.png") == "../../in/a.png"
    assert seen_from(str(tmp_path / "out"), "in/a.png") == "../in/a.png"
    assert seen_from(".", "in/a.png") == "in/a.png"
    monkeypatch.chdir(tmp_path / "in")
    assert seen_from("../out/deep", "a.png") == "../../in/a.png"
    for kept in ("/data/a.png", "s3://bucket/a.png", "https://host/a.png", ""):
        assert seen_from("out", kept) == kept
    assert seen_from("s3://bucket/out", "a.png") == str(tmp_path / "in" / "a.png")


def test_a_link_on_the_way_makes_a_path_absolute(tmp_path, monkeypatch):
    (tmp_path / "big" / "disk" / "out").mkdir(parents=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big" / "disk" / "out")
    monkeypatch.chdir(tmp_path)
    assert seen_from("out", "in/a.png") == str(tmp_path / "in" / "a.png")  # ../in is in big/disk


def test_steps_back_and_forth_are_left_out_where_that_is_the_same(tmp_path, monkeypatch):
    for folder in ("a/b", "in", "c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tidy("c/../in/x.png") == "in/x.png"
    assert tidy("c/../x.png") == "x.png"
    assert tidy("link/../in/x.png") == "link/../in/x.png"  # that is a/in
    assert tidy(f"{tmp_path}/c/../gone/x.png") == f"{tmp_path}/gone/x.png"


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.json"])
def test_a_picture_that_is_missing_says_to_what_its_path_is_relative(tmp_path, name, asked, read):
    (tmp_path / "deep").mkdir()
    coco = {"images": [{"id": 1, "file_name": "b.png"}], "annotations": [], "categories": []}
    content = {"t.csv": "image\nb.png\n", "t.txt": "b.png\n", "t.json": json.dumps(coco)}[name]
    path = tmp_path / "deep" / name
    path.write_text(content)
    [item] = open_source(path, asked).items()
    message = rf"deep/b\.png: no such file\. Check the path; those in \S+deep/{name} are relative"
    with pytest.raises(ImageError, match=message):
        read(item)
    path.write_text(content.replace("b.png", str(tmp_path / "b.png")))
    [item] = open_source(path, asked).items()
    with pytest.raises(ImageError, match=r"b\.png: no such file\. Check the path\.$"):
        read(item)

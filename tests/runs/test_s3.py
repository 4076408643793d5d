"""Whole runs from a bucket into a bucket, and what goes wrong with buckets.

In memory, and with a real server of the S3 protocol on this machine (``pip install 'moto[s3]' flask
flask-cors s3fs``).
"""

from __future__ import annotations

import errno
import io
from collections import Counter

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image as Pil

from sam2_blocks import run_pipeline
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.runs.sinks import parquet
from sam2_blocks.runs.sources import addresses
from sam2_blocks.testing import FakeExecutor
from tests.runs.sinks.test_parquet import SEGMENT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def server(monkeypatch):
    """A server of S3, and the file system that talks to it."""
    s3fs = pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    port = running.get_host_and_port()[1]
    requests.post(f"http://127.0.0.1:{port}/moto-api/reset", timeout=10)  # servers share buckets
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def bucket(request):
    """The file system of a bucket that is called like the kind of its URLs."""
    if request.param == "s3":
        system = request.getfixturevalue("server")
        system.mkdir("bucket")
        return system
    system = fsspec.filesystem("memory")
    system.store.clear()
    return system


@pytest.fixture
def url(bucket):
    return "memory:///bucket" if "memory" in bucket.protocol else "s3://bucket"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)
    monkeypatch.setattr(parquet, "PART_ROWS", 3)
    monkeypatch.setattr(addresses.time, "sleep", lambda seconds: None)


@pytest.fixture
def start(bucket, url, plugins):
    """Run on the pictures of the bucket into it: ``start(…)``; returns the ids that were run."""
    for number in range(8):
        stream = io.BytesIO()
        Pil.fromarray(np.zeros((40, 60, 3), np.uint8)).save(stream, "PNG")
        bucket.pipe_file(f"bucket/in/{number}.png", stream.getvalue())

    def run(pipeline=SEGMENT, **options):
        options = {"out": f"{url}/out", "batch_size": 2, **options}
        return [r.id for r in run_pipeline(pipeline, f"{url}/in", plugins=plugins, **options)]

    return run


def rows_of(url, tmp_path):
    return pq.read_table(merge_parts(f"{url}/out", "parquet", path=tmp_path / "m").path).to_pylist()


def test_pictures_of_a_bucket_become_parts_in_it(start, url, tmp_path):
    assert start(shard="1/2") == ["0.png", "2.png", "4.png", "6.png"]
    assert start(shard="2/2") == ["1.png", "3.png", "5.png", "7.png"]
    assert start(shard="1/2", resume=True) == []
    rows = rows_of(url, tmp_path)
    assert [row["source"] for row in rows] == [f"{url}/in/{n}.png" for n in range(8)]
    assert all(len(row["found"]) == 2 for row in rows)


def test_a_bucket_that_answers_503_three_times_is_asked_again(
    start, bucket, url, tmp_path, monkeypatch
):
    """Of each call the first three fail; a fourth failure would end the run."""
    failures = Counter()

    def unwilling(name):
        ask = getattr(bucket, name)

        def answer(path, *arguments, **options):
            failures[name, path] += 1
            if failures[name, path] % 4:
                raise OSError(errno.EBUSY, "503 Slow Down")
            return ask(path, *arguments, **options)

        monkeypatch.setattr(bucket, name, answer)

    for name in ("pipe_file", "cat_file", "ls"):
        unwilling(name)
    start()
    monkeypatch.undo()
    assert {name for name, _ in failures} == {"pipe_file", "cat_file", "ls"}
    assert [row["id"] for row in rows_of(url, tmp_path)] == [f"{n}.png" for n in range(8)]


def test_a_bucket_that_takes_no_more_ends_the_run_and_loses_nothing(
    start, bucket, url, tmp_path, monkeypatch
):
    write = bucket.pipe_file

    def full(path, *arguments, **options):
        if path.endswith("part-1-of-1-00001.parquet"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(bucket, "pipe_file", full)
        with pytest.raises(OSError, match="No space left on device"):
            start()
    assert start(resume=True) == [f"{n}.png" for n in range(3, 8)]
    assert [row["id"] for row in rows_of(url, tmp_path)] == [f"{n}.png" for n in range(8)]


def test_a_part_that_was_cut_short_is_named_and_made_again(start, bucket, url, tmp_path):
    start()
    part = "bucket/out/part-1-of-1-00001.parquet"
    bucket.pipe_file(part, bucket.cat_file(part)[:-9])
    bucket.invalidate_cache()
    with pytest.raises(UsageError, match=r"00001\.parquet: has \d+ bytes, not the \d+ that were"):
        rows_of(url, tmp_path)
    assert start(resume=True) == ["3.png", "4.png", "5.png"]
    assert [row["id"] for row in rows_of(url, tmp_path)] == [f"{n}.png" for n in range(8)]


def test_of_two_runs_into_one_bucket_the_later_one_goes_on(start, url, plugins, tmp_path):
    options = {"out": f"{url}/out", "batch_size": 1, "plugins": plugins}
    first = run_pipeline(SEGMENT, f"{url}/in", **options)
    next(first)
    assert len(start()) == 8
    with pytest.raises(UsageError, match="another run of the shard 1-of-1 began to write"):
        list(first)
    assert [row["id"] for row in rows_of(url, tmp_path)] == [f"{n}.png" for n in range(8)]


def test_a_changed_pipeline_is_not_mixed_in(start, bucket):
    start()
    before = sorted(bucket.ls("bucket/out", detail=False))
    changed = {**SEGMENT, "outputs": {"other": "$steps.find.predictions"}}
    with pytest.raises(UsageError, match="cannot --resume, because pipeline changed since the run"):
        start(changed, resume=True)
    bucket.invalidate_cache()
    assert sorted(bucket.ls("bucket/out", detail=False)) == before

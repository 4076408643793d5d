"""A whole run from a bucket into a bucket, with a real server of the S3 protocol."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import run_pipeline
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.testing import FakeExecutor
from tests.runs.sinks.test_parquet import SEGMENT

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def bucket(monkeypatch):
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    port = server.get_host_and_port()[1]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_pictures_of_a_bucket_become_parts_in_it(bucket, plugins, tmp_path, monkeypatch):
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)
    for number in range(5):
        stream = io.BytesIO()
        Pil.fromarray(np.zeros((40, 60, 3), np.uint8)).save(stream, "PNG")
        bucket.pipe_file(f"bucket/in/{number}.png", stream.getvalue())

    def start(shard, **options):
        out = "s3://bucket/out"
        run = run_pipeline(
            SEGMENT, "s3://bucket/in", out=out, shard=shard, plugins=plugins, **options
        )
        return [result.id for result in run]

    assert start("1/2") == ["0.png", "2.png", "4.png"]
    assert start("2/2") == ["1.png", "3.png"]
    assert start("1/2", resume=True) == []
    path = merge_parts("s3://bucket/out", "parquet", path=tmp_path / "m.parquet").path
    rows = pq.read_table(path).to_pylist()
    assert [row["source"] for row in rows] == [f"s3://bucket/in/{n}.png" for n in range(5)]
    assert all(len(row["found"]) == 2 for row in rows)

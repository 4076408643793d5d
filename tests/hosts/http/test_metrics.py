from __future__ import annotations

import logging
import time

import pytest

from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.hosts.http.conftest import SEGMENT
from tests.service.conftest import fresh

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")

from sam2_blocks.hosts.http import create_app  # noqa: E402


def test_metrics_tell_what_happened(connect, nano_executor):
    client = connect(fresh(nano_executor))
    for _ in range(3):
        client.post("/sam2/segment_image", json=SEGMENT)
    client.post("/sam2/segment_image", json={})
    text = client.get("/metrics").text
    for line in (
        'sam2_blocks_requests_total{route="/sam2/segment_image",status="200"} 3.0',
        'sam2_blocks_requests_total{route="/sam2/segment_image",status="422"} 1.0',
        'sam2_blocks_request_seconds_count{route="/sam2/segment_image"} 4.0',
        'sam2_blocks_batch_size_count{stage="encode"} 1.0',
        'sam2_blocks_encoder_runs_total{model="nano"} 1.0',
        'sam2_blocks_embedding_cache_hits_total{model="nano",tier="device"} 2.0',
        'sam2_blocks_embedding_cache_misses_total{model="nano",tier="device"} 1.0',
        'sam2_blocks_embedding_cache_evictions_total{model="nano",tier="device"} 0.0',
        'sam2_blocks_embedding_cache_entries{model="nano",tier="device"} 1.0',
        "sam2_blocks_queue 0.0",
        "# TYPE sam2_blocks_gpu_memory_bytes gauge",
    ):
        assert line in text


def test_an_unforeseen_error_is_counted_as_500(plugins):
    class Broken(FakeExecutor):
        def embed(self, images):
            raise RuntimeError("broken")

    app = create_app(ServedModels({"nano": Broken("nano")}), ServiceSettings(), plugins=plugins)
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        client.post("/sam2/segment_image", json=SEGMENT)
        text = client.get("/metrics").text
    assert 'sam2_blocks_requests_total{route="/sam2/segment_image",status="500"} 1.0' in text
    assert 'status="499"' not in text


def test_time_is_in_seconds(connect):
    started = time.perf_counter()
    answered = connect().post("/sam2/segment_image", json=SEGMENT).json()["time"]
    assert 0 <= answered <= time.perf_counter() - started


def test_every_request_is_a_line_in_the_log_without_its_query(connect, caplog):
    client = connect()
    with caplog.at_level(logging.INFO, "sam2_blocks.hosts.http"):
        client.get("/nothing?api_key=secret")
        client.get("/metrics")
        client.post("/sam2/segment_image", json=SEGMENT)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("http.metrics")]
    assert [line.split(" ")[1:4] for line in lines] == [
        ["GET", "/nothing", "404"],
        ["POST", "/sam2/segment_image", "200"],
    ]
    assert all(line.endswith(" ms") for line in lines)

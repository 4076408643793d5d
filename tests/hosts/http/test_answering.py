from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hosts.http.conftest import SEGMENT, GatedExecutor, refused

pytest.importorskip("fastapi", reason="needs the extra http")


def test_429_more_bytes_than_the_queue_may_hold(connect):
    executor = GatedExecutor()
    client = connect(executor, max_queue_bytes=len(json.dumps(SEGMENT)) + 100)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/sam2/segment_image", json=SEGMENT)
        assert executor.entered.wait(120)
        response = client.post("/sam2/segment_image", json=SEGMENT)
        executor.gate.set()
        refused(response, 429, "bytes are waiting. Try again later")
        assert first.result().status_code == 200
    assert client.post("/sam2/segment_image", json=SEGMENT).status_code == 200


def test_504_an_answer_that_takes_too_long_to_make(connect, monkeypatch):
    gate = threading.Event()
    client = connect(deadline_s=0.5)

    def write(*_, **__):
        assert gate.wait(120)

    monkeypatch.setattr("sam2_blocks.hosts.http.answering.to_json", write)
    response = client.post("/sam2/segment_image", json=SEGMENT)
    gate.set()
    refused(response, 504, "no answer within 0.5 s")


def test_504_a_request_that_takes_too_long_to_check(connect, monkeypatch):
    gate = threading.Event()
    client = connect(deadline_s=0.5)

    def check(*_):
        assert gate.wait(120)

    monkeypatch.setattr("sam2_blocks.hosts.http.answering._validate", check)
    response = client.post("/sam2/segment_image", json=SEGMENT)
    gate.set()
    refused(response, 504, "no answer within 0.5 s")

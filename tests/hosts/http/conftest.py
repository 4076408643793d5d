from __future__ import annotations

import threading

import pytest

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import as_request, box, nano_executor, picture

__all__ = ["nano_executor"]

PICTURE = picture()
SEGMENT = {"image": as_request(PICTURE), "prompts": [box(10, 10, 60, 50)], "format": "rle"}


class GatedExecutor(FakeExecutor):
    """Embeds only while its gate is open."""

    def __init__(self):
        super().__init__("nano")
        self.gate = threading.Event()
        self.entered = threading.Event()

    def embed(self, images):
        self.entered.set()
        assert self.gate.wait(120)
        return super().embed(images)


@pytest.fixture(scope="module")
def plugins():
    """Loaded once: no test here changes them."""
    return load_plugins(strict=True, points=[])


@pytest.fixture
def connect(plugins):
    """``connect(executor, setting=value)``: a client of an app of its own."""
    testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")
    from sam2_blocks.hosts.http import create_app

    clients = []

    def make(executor=None, pipelines=None, **settings):
        models = ServedModels({"nano": executor or FakeExecutor("nano")})
        app = create_app(models, ServiceSettings(**settings), plugins=plugins, pipelines=pipelines)
        client = testclient.TestClient(app)
        clients.append(client.__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def refused(response, status, message):
    """Check status and message, where inference-sdk and others look for it."""
    body = response.json()
    assert response.status_code == status, body
    assert message in body["message"], body
    assert body["detail"]
    return body

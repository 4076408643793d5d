from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.hosts.labelstudio.projects import EVERYTHING, IMAGE, MARKED
from tests.service.conftest import nano_executor, to_base64

__all__ = ["nano_executor"]

PERSONAL = "aaa.bbb.ccc"


class Handler(BaseHTTPRequestHandler):
    """Label Studio's addresses of pictures; remembers paths and tokens."""

    seen: list[tuple[str, str | None]]

    def do_GET(self):
        type(self).seen.append((self.path, self.headers["Authorization"]))
        path, _, query = self.path.partition("?")
        if self.headers["Accept"] == "image/*" and self.headers["Authorization"]:
            self.send_error(406)  # as Label Studio does
        elif path == "/data/elsewhere":
            self.send_response(302)
            self.send_header("Location", query)
            self.end_headers()
        else:
            self.send_response(200)
            self.end_headers()
            is_picture = self.path == "/data/sample.png"
            self.wfile.write(
                base64.b64decode(to_base64(IMAGE)) if is_picture else self.path.encode()
            )

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/api/token/refresh" and given == {"refresh": PERSONAL}
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"access": f"access {len(type(self).seen)}"}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """``server()``: the URL of one more server, and what it saw."""
    running = []

    def start():
        handler = type("H", (Handler,), {"seen": []})
        running.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}", handler.seen

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture
def folder_of_pipelines(tmp_path):
    (tmp_path / "everything.yaml").write_text(EVERYTHING)
    (tmp_path / "marked.yaml").write_text(MARKED)
    return tmp_path


@pytest.fixture
def connect(plugins, folder_of_pipelines):
    """``connect(setting=value)``: a client of a service that is a backend, too."""
    testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")
    from sam2_blocks.hosts.http import create_app

    clients = []

    def make(executor=None, **settings):
        models = ServedModels({"nano": executor or FakeExecutor("nano")})
        chosen = ServiceSettings(**{"label_studio": True, **settings})
        app = create_app(models, chosen, plugins=plugins, pipelines=folder_of_pipelines)
        clients.append(testclient.TestClient(app).__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)

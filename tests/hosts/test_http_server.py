"""A real server on the loopback address: hanging up, shutting down, dying."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.service.conftest import as_request, box, picture

pytest.importorskip("uvicorn", reason="needs the extra http")

BODY = json.dumps({"image": as_request(picture()), "prompts": [box(10, 10, 60, 50)]})
HEAD = "POST /sam2/segment_image HTTP/1.1\r\nHost: localhost\r\n"
# Serves a model that takes half a second for each image, and says which images it saw.
SLOW_SERVER = """
import sys, time
from sam2_blocks.hosts.http import create_app, serve
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor

class Slow(FakeExecutor):
    def embed(self, images):
        print("embedding", len(images), flush=True)
        time.sleep(0.5)
        return super().embed(images)

settings = ServiceSettings(max_batch=1)
serve(create_app(ServedModels({"nano": Slow("nano")}), settings), port=0)
"""


class Server:
    """A server in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW_SERVER],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SAM2_BLOCKS_PLUGINS": ""},
        )
        self.port = int(self.wait_for("listening").rpartition(":")[2])

    def wait_for(self, word):
        for line in self.process.stdout:
            if word in line:
                return line
        pytest.fail(f"the server ended: {self.process.stderr.read()}")

    def connect(self):
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))

    def send(self, text):
        """Send text as it is; the socket closes with the block."""
        raw = socket.create_connection(("127.0.0.1", self.port))
        raw.sendall(text.encode())
        return closing(raw)

    def post(self):
        with self.connect() as connection:
            return post(connection)


def post(connection):
    connection.request("POST", "/sam2/segment_image", BODY)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.process.kill()
    running.process.communicate()


def test_a_signal_finishes_what_is_in_flight_and_refuses_the_rest(server):
    with server.connect() as idle, ThreadPoolExecutor(3) as pool:
        assert post(idle)[0] == 200
        server.wait_for("embedding")
        in_flight = [pool.submit(server.post) for _ in range(3)]
        server.wait_for("embedding")
        time.sleep(0.1)  # until all three are admitted
        server.process.send_signal(signal.SIGTERM)
        assert [request.result()[0] for request in in_flight] == [200, 200, 200]
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            post(idle)
    with pytest.raises(ConnectionRefusedError):
        server.post()
    assert server.process.wait(10) == -signal.SIGTERM
    assert "Traceback" not in server.process.stderr.read()


def test_a_request_whose_client_hung_up_is_not_computed(server):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post)
        server.wait_for("embedding")
        with server.send(f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}"):
            time.sleep(0.1)  # until it is queued behind the first
        assert first.result()[0] == 200
    assert server.post()[0] == 200
    server.process.send_signal(signal.SIGTERM)
    rest = server.process.stdout.read()
    assert rest.count("embedding") == 1, rest  # that of the last request
    assert "Traceback" not in server.process.stderr.read()


def test_clients_of_a_killed_server_see_clean_connection_errors(server):
    errors: list[BaseException] = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            try:
                status, body = server.post()
                assert (status, bool(json.loads(body))) == (200, True)
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.wait_for("embedding")
    server.process.kill()
    for thread in threads:
        thread.join(30)
    stop.set()
    assert len(errors) == 4
    assert all(isinstance(error, ConnectionError) for error in errors), errors


def test_a_body_that_never_ends_does_not_hold_up_others(server):
    with server.send(f"{HEAD}Content-Length: 1000\r\n\r\n{{"):
        assert server.post()[0] == 200

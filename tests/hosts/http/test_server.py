"""A real server on the loopback address: hanging up, shutting down, dying."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.service.conftest import as_request, box, picture

pytest.importorskip("uvicorn", reason="needs the extra http")

BODY = json.dumps({"image": as_request(picture()), "prompts": [box(10, 10, 60, 50)]})
HEAD = "POST /sam2/segment_image HTTP/1.1\r\nHost: localhost\r\n"
# Serves a model that says when it gets an image, and goes on when it is told to by a line.
GATED_SERVER = """
import json, sys
from sam2_blocks.hosts.http import create_app, serve
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor

class Gated(FakeExecutor):
    def embed(self, images):
        print("embedding", len(images), flush=True)
        sys.stdin.readline()
        return super().embed(images)

settings = ServiceSettings(max_batch=1, **json.loads(sys.argv[2]))
serve(create_app(ServedModels({"nano": Gated("nano")}), settings), host=sys.argv[1], port=0)
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, host="127.0.0.1", **settings):
        self.host = host
        self.process = subprocess.Popen(
            [sys.executable, "-c", GATED_SERVER, host, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SAM2_BLOCKS_PLUGINS": ""},
        )
        self.url = self.wait_for("listening").split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def wait_for(self, word):
        for line in self.process.stdout:
            if word in line:
                return line
        pytest.fail(f"the server ended: {self.process.stderr.read()}")

    def let_go(self, count=1):
        """Let the model embed so many images, those that wait or the next."""
        self.process.stdin.write("\n" * count)
        self.process.stdin.flush()

    def wait_for_queue(self, size):
        """Wait until so many requests are waiting or being answered."""
        with self.connect() as connection:
            while True:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
                if f"sam2_blocks_queue {size}.0" in text:
                    return

    def connect(self):
        return closing(http.client.HTTPConnection(self.host, self.port, timeout=300))

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


def wait_until_refused(connection):
    """Ask until there is no other answer than 503, or none at all."""
    status = None
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        while status != 503:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            response.read()
            status = response.status


@pytest.fixture
def server():
    with running() as server:
        yield server


@contextmanager
def running(*args, **settings):
    server = Server(*args, **settings)
    yield server
    server.process.kill()
    server.process.communicate()


def test_a_signal_finishes_what_is_in_flight_and_refuses_the_rest(server):
    with server.connect() as idle, ThreadPoolExecutor(3) as pool:
        server.let_go()
        assert post(idle)[0] == 200
        in_flight = [pool.submit(server.post) for _ in range(3)]
        server.wait_for_queue(3)
        server.process.send_signal(signal.SIGTERM)
        wait_until_refused(idle)
        server.let_go(3)
        assert [request.result()[0] for request in in_flight] == [200, 200, 200]
    assert server.process.wait(300) == -signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        server.post()
    assert "Traceback" not in server.process.stderr.read()


def test_a_request_whose_client_hung_up_is_not_computed(server):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post)
        server.wait_for("embedding")
        with server.send(f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}"):
            server.wait_for_queue(2)
        server.wait_for_queue(1)
        server.let_go(2)
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
        thread.join(300)
    stop.set()
    assert len(errors) == 4
    assert all(isinstance(error, ConnectionError) for error in errors), errors


def test_a_body_that_never_ends_does_not_hold_up_others(server):
    server.let_go()
    with server.send(f"{HEAD}Content-Length: 1000\r\n\r\n{{"):
        assert server.post()[0] == 200


def test_a_model_that_never_ends_does_not_keep_the_process_from_ending():
    def ask():
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            while server.process.poll() is None:  # until one came to the model in time
                server.post()

    with running(deadline_s=1) as server, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        server.wait_for("embedding")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(300) == 128 + signal.SIGTERM
        assert "not done after 4 s; ending anyway" in server.process.stderr.read()
        asking.result()


def test_strangers_who_never_end_keep_no_key_holder_waiting():
    with running(api_key="key") as server, contextlib.ExitStack() as strangers:
        server.let_go(5)
        for _ in range(40):
            text = f"{HEAD}Content-Length: 1000\r\n\r\n{{"
            strangers.enter_context(server.send(text))
        for headers, body in (
            ({"X-API-Key": "key"}, BODY),
            ({}, json.dumps({**json.loads(BODY), "api_key": "key"})),
        ):
            with server.connect() as connection:
                connection.request("POST", "/sam2/segment_image", body, headers)
                assert connection.getresponse().status == 200


def test_decoders_end_with_the_server(server):
    server.let_go()
    assert server.post()[0] == 200
    task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}")
    if not task.exists():
        pytest.skip("looks at processes in /proc")
    children = [
        int(child)
        for one in task.parent.iterdir()
        for child in (one / "children").read_text().split()
    ]
    assert children
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(300) == -signal.SIGTERM
    assert not any(Path(f"/proc/{child}/status").exists() for child in children)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "reached_at"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_an_address_of_ipv6_is_listened_on_and_shown_in_brackets(host, reached_at):
    with running(host) as server:
        assert re.fullmatch(rf"http://\[{host}\]:\d+", server.url)
        for server.host in reached_at:
            with server.connect() as connection:
                connection.request("GET", "/healthz")
                assert connection.getresponse().status == 200

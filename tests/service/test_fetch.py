"""Against real servers on the loopback address, which must be allowed for that."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sam2_blocks.service import fetch as fetch_module
from sam2_blocks.service.errors import ImageRefusedError, TooLargeError
from sam2_blocks.service.fetch import FetchLimits, fetch, is_public, origin_of

CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """Answers by path; remembers the Host headers it saw."""

    hosts: list[str]
    stop: threading.Event

    def do_GET(self):
        type(self).hosts.append(self.headers["Host"])
        path, _, query = self.path.partition("?")
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", query)
            self.end_headers()
        elif path == "/moved-nowhere":
            self.send_response(302)
            self.send_header("Location", "http://[")
            self.end_headers()
        elif path == "/loop":
            self.send_response(301)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif path == "/drip":
            self.drip()
        elif path == "/drip-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.drip()
        elif path == "/chunked":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        elif path in ("/image", "/a%20b"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.send_error(404)

    def drip(self):
        self.send_response(200) if self.path == "/drip" else None
        while not type(self).stop.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("OwnHandler", (Handler,), {"hosts": [], "stop": threading.Event()})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    handler.stop.set()
    running.shutdown()
    thread.join()
    running.server_close()


def limits(**changes):
    return FetchLimits(**{"max_bytes": 20_000, "timeout_s": 120, "allow_private": True, **changes})


def url_of(server, path="/image", host="127.0.0.1"):
    return f"http://{host}:{server.server_port}{path}"


def test_a_file_is_fetched(server):
    assert fetch(url_of(server), limits()) == CONTENT
    assert fetch(url_of(server, "/chunked"), limits()) == b"abcde"
    assert fetch(url_of(server, "/a b"), limits()) == CONTENT


def test_private_addresses_are_refused_unless_allowed(server):
    with pytest.raises(ImageRefusedError, match=r"'127\.0\.0\.1' is not a public address"):
        fetch(url_of(server), limits(allow_private=False))
    assert server.RequestHandlerClass.hosts == []


def test_what_the_operator_trusts_gets_its_headers_and_may_be_private(server):
    handler = server.RequestHandlerClass
    trusted = {origin_of(url_of(server)): {"Host": "studio", "Accept": "*/*"}}
    own = limits(allow_private=False, trusted=trusted)
    assert fetch(url_of(server), own) == CONTENT
    assert handler.hosts == ["studio"]
    with pytest.raises(ImageRefusedError, match="'localhost' is not a public address"):
        fetch(url_of(server, f"/moved?{url_of(server, host='localhost')}"), own)
    everywhere = limits(trusted=trusted)
    assert fetch(url_of(server, f"/moved?{url_of(server, host='localhost')}"), everywhere)
    assert handler.hosts[-1].startswith("localhost:")


def test_an_origin_is_scheme_host_and_port():
    assert origin_of("https://Example.com/a") == origin_of("https://example.com:443/b?c")
    with pytest.raises(ImageRefusedError, match="must start with http"):
        origin_of("ftp://example.com")


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_every_spelling_of_loopback_is_refused(host):
    with pytest.raises(ImageRefusedError, match=r"is not a public address|cannot be resolved"):
        fetch(f"http://{host}/", limits(allow_private=False))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("ff02::1", False),
        ("192.0.0.192", False),
        ("168.63.129.16", False),
        ("168.63.129.17", True),
        ("192.88.99.1", False),
        ("198.19.255.255", False),
        ("255.255.255.255", False),
        ("64:ff9b::93.184.216.34", True),
        ("64:ff9b:1::93.184.216.34", False),
        ("::93.184.216.34", False),
        ("::ffff:0:93.184.216.34", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("2002:5db8:d822::1", False),
        ("2606:2800:220:1:0:5efe:10.0.0.1", False),
        ("2606:2800:220:1:200:5efe:169.254.169.254", False),
        ("2606:2800:220:1:0:5efe:93.184.216.34", True),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("100::1", False),
        ("2a00:1450:4001:80b::200e", True),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


def test_redirects_are_followed_and_checked_again(server, monkeypatch):
    assert fetch(url_of(server, "/moved?/image"), limits()) == CONTENT
    checked = []
    original = fetch_module.is_public
    monkeypatch.setattr(
        fetch_module, "is_public", lambda address: checked.append(address) or len(checked) == 1
    )
    assert original("8.8.8.8")
    with pytest.raises(ImageRefusedError, match="is not a public address"):
        fetch(url_of(server, "/moved?/image"), limits(allow_private=False))
    assert checked == ["127.0.0.1", "127.0.0.1"]


def test_endless_redirects_end(server):
    with pytest.raises(ImageRefusedError, match="more than 3 redirects"):
        fetch(url_of(server, "/loop"), limits())
    assert len(server.RequestHandlerClass.hosts) == 4


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://x"])
def test_a_redirect_to_another_scheme_is_refused(server, target):
    with pytest.raises(ImageRefusedError, match="must start with http:// or https://"):
        fetch(url_of(server, f"/moved?{target}"), limits())


def test_a_redirect_to_nowhere_is_refused(server):
    with pytest.raises(ImageRefusedError, match=r"'127\.0\.0\.1' cannot be read: Invalid IPv6"):
        fetch(url_of(server, "/moved-nowhere"), limits())


def test_the_connection_goes_to_the_address_that_was_checked(server, monkeypatch):
    """A name that resolves to a public address first and to loopback second gains nothing."""
    answers = [[(2, 1, 6, "", ("127.0.0.1", server.server_port))]]

    def resolve(host, port, **_):
        assert host == "rebind.example"
        return answers.pop(0)

    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetch_module, "is_public", lambda _: True)
    connect = socket.create_connection
    used = []

    def connect_to(address, *args):
        used.append(address)
        monkeypatch.undo()
        return connect(address, *args)

    monkeypatch.setattr(fetch_module.socket, "create_connection", connect_to)
    url = url_of(server, host="rebind.example")
    assert fetch(url, limits(allow_private=False)) == CONTENT
    assert used == [("127.0.0.1", server.server_port)]
    assert server.RequestHandlerClass.hosts == [f"rebind.example:{server.server_port}"]
    assert answers == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    found = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ImageRefusedError, match=r"'two\.example' is not a public address"):
        fetch("http://two.example/", limits(allow_private=False))


def test_a_file_that_is_too_large_is_refused(server):
    with pytest.raises(TooLargeError, match="larger than 100 bytes"):
        fetch(url_of(server), limits(max_bytes=100))


@pytest.mark.parametrize("path", ["/drip", "/drip-headers"])
def test_a_server_that_drips_cannot_outlast_the_time_limit(server, path):
    with pytest.raises(ImageRefusedError, match=r"'127\.0\.0\.1' cannot be read"):
        fetch(url_of(server, path), limits(timeout_s=0.3))


def test_a_name_server_that_never_answers_cannot_outlast_the_time_limit(monkeypatch):
    answer = threading.Event()

    def resolve(*_, **__):
        assert answer.wait(120)
        return []

    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", resolve)
    with pytest.raises(ImageRefusedError, match=r"'a\.example' cannot be resolved: the time is up"):
        fetch("http://a.example/", limits(timeout_s=0.1))
    answer.set()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "name a host"),
        ("http://a:99999/", "malformed"),
        ("http://user:secret@example.com/", "user name or password"),
        ("http://[::1/", "malformed"),
        ("http://a..b/", "malformed"),
        ("http://no-such-host.invalid/", "cannot be resolved"),
    ],
)
def test_a_malformed_url_is_refused(url, message):
    with pytest.raises(ImageRefusedError, match=message):
        fetch(url, limits())


def test_an_answer_that_is_not_200_is_refused(server):
    with pytest.raises(ImageRefusedError, match="answered with status 404"):
        fetch(url_of(server, "/none"), limits())

from __future__ import annotations

import pytest

from sam2_blocks.service.errors import ForbiddenError

requests = pytest.importorskip("starlette.requests", reason="needs the extra http")

from sam2_blocks.hosts.http.page.guard import (  # noqa: E402
    is_below_page,
    is_loopback,
    refuse_other_sites,
)


def asked(**headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return requests.Request({"type": "http", "headers": named})


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:9001"},
        {"host": "localhost:9001", "origin": "http://localhost:9001"},
        {"host": "[::1]:9001", "sec_fetch_site": "same-origin"},
        {"host": "192.168.1.5", "sec_fetch_site": "none"},
    ],
)
def test_our_own_page_is_let_in(headers):
    refuse_other_sites(asked(**headers), has_key=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:9001", "origin": "http://evil.example"},
        {"host": "127.0.0.1:9001", "origin": "http://127.0.0.1:8000"},
        {"host": "127.0.0.1:9001", "origin": "null"},
        {"host": "127.0.0.1:9001", "sec_fetch_site": "cross-site"},
        {"host": "127.0.0.1:9001", "sec_fetch_site": "same-site"},
    ],
)
@pytest.mark.parametrize("has_key", [False, True])
def test_other_sites_are_not(headers, has_key):
    with pytest.raises(ForbiddenError, match="requests of other sites are not answered"):
        refuse_other_sites(asked(**headers), has_key=has_key)


@pytest.mark.parametrize("host", ["evil.example:9001", "127.0.0.1.evil.example", "", "[bad"])
def test_a_name_pointed_here_is_refused_without_a_key(host):
    with pytest.raises(ForbiddenError, match="Start the server with --api-key"):
        refuse_other_sites(asked(host=host), has_key=False)


def test_with_a_key_any_name_will_do():
    refuse_other_sites(asked(host="masks.example"), has_key=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.com", False),
    ],
)
def test_loopback_addresses(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("path", "expected"), [("/page", True), ("/page/x", True), ("/pages", False), ("/", False)]
)
def test_paths_of_the_page(path, expected):
    assert is_below_page(path) is expected

"""Fetch a file from a URL that a stranger chose, without being led astray.

The host name is resolved once, every address is checked, and the connection goes to the address
that was checked (no rebinding); redirects start over. Bounded in size and in total time. Proxy
variables are not read: a proxy would resolve the name again.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from sam2_blocks.service.errors import (
    ImageRefusedError,
    PrivateAddressError,
    TooLargeError,
    UnansweredError,
)

MAX_REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Our own list: what an interpreter calls global differs from one version to the next.
# Source: the IANA special-purpose address registries, read in 2026, and what clouds add to them.
CLOSED_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' own
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's services of a virtual machine
            "169.254.0.0/16",  # link-local, and with it the metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocols; 192.0.0.192 is Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
OPEN_IPV6 = ipaddress.IPv6Network("2000::/3")  # nothing else is given out to hosts
CLOSED_IPV6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols, Teredo, benchmarks, identifiers
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "3ffe::/16",  # the 6bone that was
            "3fff::/20",  # documentation
        ),
    )
)
MAPPED, NAT64 = map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96"))
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""What stands before the IPv4 address in the last half of a tunnel's address."""


@dataclass(frozen=True)
class FetchLimits:
    """What a fetch may cost and where it may go.

    Attributes:
        max_bytes: largest file.
        timeout_s: for all of it: resolving, connecting, redirects and reading.
        allow_private: also connect to addresses that are not public.
        trusted: headers by origin (see `origin_of`), of servers that the operator named: they are
            sent there alone, also after a redirect, and these may have any address.
    """

    max_bytes: int
    timeout_s: float
    allow_private: bool = False
    trusted: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class _Target(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL.

    Raises:
        ImageRefusedError: if it is malformed.

    Example:
        >>> origin_of("https://Example.com/a.jpg")
        'https://example.com:443'
    """
    return _parse(url).origin


def fetch(url: str, limits: FetchLimits) -> bytes:
    """Download a file.

    Args:
        url: http or https.
        limits: size, time, and which addresses are allowed.

    Raises:
        ImageRefusedError: if the URL is malformed or leads to an address that is not allowed, the
            server does not answer with 200, or the time is up; an `UnansweredError` where it may
            go better later.
        TooLargeError: if the file is too large.
    """
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        target = _parse(url)
        own = limits.trusted.get(target.origin)
        is_open = limits.allow_private or own is not None
        address = _checked_address(target, deadline, allow_private=is_open)
        try:
            found = _get(target, address, limits.max_bytes, deadline, own or {})
            url = url if isinstance(found, bytes) else urljoin(url, found)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnansweredError(f"{target.host!r} cannot be read: {_reason(error)}") from error
        if isinstance(found, bytes):
            return found
    raise ImageRefusedError(f"more than {MAX_REDIRECTS} redirects.")


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ImageRefusedError(f"the URL is malformed: {error}") from error
    if parts.scheme not in PORTS or not host:
        raise ImageRefusedError("the URL must start with http:// or https:// and name a host.")
    if parts.username is not None:
        raise ImageRefusedError("a URL with a user name or password is not fetched.")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return _Target(parts.scheme, host, port, f"{path}?{query}" if query else path)


def _checked_address(target: _Target, deadline: float, *, allow_private: bool) -> str:
    """Resolve the host; refuse it if any of its addresses is not public."""
    try:
        found = _resolve(target, deadline)
    except (OSError, UnicodeError) as error:
        raise UnansweredError(f"{target.host!r} cannot be resolved: {error}") from error
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    for address in addresses:
        if not allow_private and not is_public(address):
            raise PrivateAddressError(
                f"{target.host!r} is not a public address; this service fetches only from those."
            )
    return addresses[0]


def _resolve(target: _Target, deadline: float) -> list[Any]:
    """Look up a host; nothing can stop that, so when time is up it is left to its own thread.

    A daemon, which holds up no exit; the resolver of the system gives up sooner or later.
    """
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except Exception as error:  # raised where it is waited for
            found.set_exception(error)

    threading.Thread(target=look_up, name="sam2-blocks-resolve", daemon=True).start()
    try:
        return found.result(_left(deadline))
    except FutureTimeoutError:
        raise TimeoutError("the time is up") from None


def is_public(address: str) -> bool:
    """Tell whether an IP address is that of a host on the public Internet.

    IPv6 forms that end in an IPv4 address (mapped, NAT64, ISATAP) are judged by that one, too;
    other forms that stand for one are refused.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in CLOSED_IPV4)
    low = int(parsed) & 0xFFFFFFFF
    if parsed in MAPPED or parsed in NAT64:
        return is_public(str(ipaddress.IPv4Address(low)))
    if int(parsed) >> 32 & 0xFFFFFFFF in ISATAP and not is_public(str(ipaddress.IPv4Address(low))):
        return False
    return parsed in OPEN_IPV6 and not any(parsed in network for network in CLOSED_IPV6)


class _PinnedConnection(http.client.HTTPConnection):
    """Speaks HTTP for a host, over a connection to an address that was checked before."""

    def __init__(self, target: _Target, address: str, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self.default_port = PORTS[target.scheme]
        self._address = address
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self._open_socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the address, and shake hands as the host."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
        self._open_socket = self.sock
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()

    def abort(self) -> None:
        """End whatever another thread waits for on this connection."""
        if self._open_socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._open_socket, socket.SHUT_RDWR)


def _get(
    target: _Target, address: str, max_bytes: int, deadline: float, own: Mapping[str, str]
) -> bytes | str:
    """Return the file, or where it has moved to."""
    connection = _PinnedConnection(target, address, _left(deadline))
    # Timeouts of a socket start anew with every byte; a server that drips needs a harder end.
    watchdog = threading.Timer(_left(deadline), connection.abort)
    watchdog.daemon = True
    watchdog.start()
    try:
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "sam2-blocks"}
        connection.request("GET", target.path, headers={**headers, **own})
        response = connection.getresponse()
        location = response.getheader("Location")
        if response.status in REDIRECTS and location:
            return location
        if response.status != 200:
            later = response.status == 429 or response.status >= 500
            refused = UnansweredError if later else ImageRefusedError
            raise refused(f"{target.host!r} answered with status {response.status}.")
        content = response.read(max_bytes + 1)
        _left(deadline)  # what was aborted looks complete
    finally:
        watchdog.cancel()
        connection.close()
    if len(content) > max_bytes:
        raise TooLargeError(f"the file is larger than {max_bytes} bytes.")
    return content


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is up")
    return left


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__

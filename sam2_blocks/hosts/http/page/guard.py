"""Keeps other sites' pages from reading and writing through a browser that can reach this server.

A server on the loopback address without a key trusts whoever reaches it. A page of another site
reaches it, too, by the browser of the person in front of it: by asking directly, which shows in
``Origin`` and ``Sec-Fetch-Site``, or under a name of its own that it has pointed here (DNS
rebinding), which shows in ``Host``.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam2_blocks.service.errors import ForbiddenError

PREFIX = "/page"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PageHeaders:
    """Puts `HEADERS` on every answer below ``/page``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add to its answer."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        ours = scope["type"] == "http" and is_below_page(scope["path"])
        await self._app(scope, receive, add if ours else send)


def is_below_page(path: str) -> bool:
    """Whether a path is the page's."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_other_sites(request: Request, *, has_key: bool) -> None:
    """Go on only if the request is from our own page, or from no page at all.

    Args:
        request: one for the page's data.
        has_key: whether the server asks for a key, which other sites do not have.

    Raises:
        ForbiddenError: if it comes from another site, or under another site's name.
    """
    host = request.headers.get("host", "")
    if not has_key and not _is_address(host):
        raise ForbiddenError(
            f"the page is not served as {host!r}: without a key only under an address, such as "
            "127.0.0.1, or localhost. Start the server with --api-key."
        )
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (origin and origin.partition("://")[2] != host):
        raise ForbiddenError("requests of other sites are not answered here.")


def _is_address(host: str) -> bool:
    name = ""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True

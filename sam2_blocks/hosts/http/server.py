"""uvicorn, told to finish what it has when it is asked to stop."""

from __future__ import annotations

import math
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sam2_blocks.service import Service


class _Server(uvicorn.Server):
    """Refuses new requests from the moment a signal comes, also on open connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after what is in flight; a second interrupt stops at once."""
        self._service.drain()
        super().handle_exit(sig, frame)


def serve(app: FastAPI, *, host: str = "127.0.0.1", port: int = 9001) -> None:
    """Serve an app until SIGINT or SIGTERM.

    Requests in flight are answered; new connections are refused, and new requests on open ones get
    503. Blocks until all is done, at most as long as a request may take.

    Args:
        app: as `create_app` makes it.
        host: address to listen on, of IPv4 or IPv6; ``::`` is every address of both.
        port: 0 takes a free one.

    Raises:
        OSError: if the address cannot be listened on.
    """
    service: Service = app.state.service
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(service.settings.deadline_s),
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{listener.getsockname()[1]}", flush=True)
    _Server(config, service).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=2048,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )

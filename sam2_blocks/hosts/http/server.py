"""uvicorn, told to finish what it has when it is asked to stop."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sam2_blocks.service import Service

GRACE_S = 5.0
"""From the deadline of the last request until the process ends, at the latest."""
ALARM_S = 0.5
NOTICING_S = 2.0
"""Part of that: a busy machine needs so long to notice the signal, and to end a process."""


class _Server(uvicorn.Server):
    """Refuses new requests from the moment a signal comes, also on open connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ending = _Ending(service.settings.deadline_s + GRACE_S - NOTICING_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after what is in flight; a second interrupt stops at once."""
        self._service.drain()
        self._ending.asked(sig)
        super().handle_exit(sig, frame)


class _Ending:
    """Ends this process some time after it was asked to end, whatever its threads do.

    Its own thread waits from the start: to start one is nothing a signal handler may do. Where
    other threads do not let it run, the alarm of the system ends the process, which needs no
    interpreter.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._signal = 0
        self._asked = threading.Event()
        threading.Thread(target=self._wait, name="sam2-blocks-ending", daemon=True).start()

    def asked(self, sig: int) -> None:
        """Start to count, if not yet."""
        if not self._signal and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, self._seconds + ALARM_S)
        self._signal = self._signal or sig
        self._asked.set()

    def _wait(self) -> None:
        self._asked.wait()
        time.sleep(self._seconds)
        print(f"not done after {self._seconds:g} s; ending anyway", file=sys.stderr, flush=True)
        os._exit(128 + self._signal)


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 9001,
    listening: Callable[[str], None] | None = None,
) -> None:
    """Serve an app until SIGINT or SIGTERM.

    Requests in flight are answered; new connections are refused, and new requests on open ones get
    503. Blocks until all is done; the process ends when a request may take no longer and `GRACE_S`
    have passed, even if a model still computes.

    Args:
        app: as `create_app` makes it.
        host: address to listen on, of IPv4 or IPv6; ``::`` is every address of both.
        port: 0 takes a free one.
        listening: called with the server's URL once connections are taken.

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
    url = f"http://{shown}:{listener.getsockname()[1]}"
    print(f"listening on {url}", flush=True)
    if listening is not None:
        listening(url)
    _Server(config, service).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=2048,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )

"""A server in a thread of the tests."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager


@contextmanager
def running(app):
    """Serve an app on a free port of the loopback address; gives its URL."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()

"""The service over HTTP (extra ``http``): a FastAPI app, and uvicorn to serve it.

A request's way: `app` (its route) → `answering` (`keys`, `body`) → `sam2_blocks.service`, which
decides what is answered, and why not → `errors`, if it is refused. `tracks` and `roboflow` have
further routes, `docs` describes them all, `metrics` counts requests, `server` starts and stops, and
`page` lets people click masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.errors import MissingExtraError
from sam2_blocks.hosts.bridge import HostReport, installed_version, offer_in_pipelines

if TYPE_CHECKING:
    from sam2_blocks.hosts.http.app import create_app
    from sam2_blocks.hosts.http.page.folder import PageFolder
    from sam2_blocks.hosts.http.page.guard import is_loopback
    from sam2_blocks.hosts.http.server import serve

__all__ = ["PageFolder", "create_app", "is_loopback", "report", "serve"]


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it: what pipelines in requests may use."""
    return HostReport(
        title="HTTP",
        installed=installed_version("fastapi"),
        how="sam2-blocks serve, and POST /pipelines/run",
        offer=offer_in_pipelines(plugins, trusted=False),
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from sam2_blocks.hosts.http import app, server
        from sam2_blocks.hosts.http.page import folder, guard
    except ImportError as error:
        raise MissingExtraError(f"{error}. Run: pip install 'sam2-blocks[http]'") from error
    modules = {"PageFolder": folder, "create_app": app, "is_loopback": guard, "serve": server}
    return getattr(modules[name], name)

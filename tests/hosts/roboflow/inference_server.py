"""Roboflow's server with our plugin: ``python -m tests.hosts.roboflow.inference_server PORT``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.hosts.roboflow.conftest import define_torchvision_operators


def main(port: int) -> None:
    """Serve, as the images that Roboflow publishes do, but without registry, cache or network.

    Args:
        port: on the loopback address. The current folder gets an empty one for pages.
    """
    define_torchvision_operators()
    import uvicorn

    for folder in ("static", "_next/static"):  # of its pages, which the package does not bring
        Path("inference/landing/out", folder).mkdir(parents=True, exist_ok=True)
    from inference.core.interfaces.http.http_api import HttpInterface
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry

    app = HttpInterface(ModelManager(RoboflowModelRegistry({}))).app
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))

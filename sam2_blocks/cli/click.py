"""``sam2-blocks click``: the page for clicking masks, on this machine, with one's own pictures."""

from __future__ import annotations

import os
import threading
import warnings
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.cli.options import use_backend
from sam2_blocks.cli.screen import out as screen
from sam2_blocks.errors import PromptWarning

GIB = 2**30
OWN_PICTURES = {
    "window_ms": 0.0,  # nobody else's request will come to share a batch
    "max_pixels": 178_956_970,
    "max_body_bytes": GIB,
    "max_queue_bytes": GIB,
    "max_open_bytes": GIB,
    "decode_bytes": 2 * GIB,
    "decode_s": 60.0,
}
"""Settings for whoever starts the server and his pictures; those of `serve` are for strangers."""


def click(
    pictures: Annotated[
        Path, typer.Argument(exists=True, help="A picture, or a folder of them, searched deeply.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder to save masks to; opened again with what was there."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model to click with; a second one that reads phrases adds a box for text. By "
            "default $SAM2_VERSION_ID, or nano.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or int8.")] = "auto",
    backend: Annotated[
        str | None, typer.Option(help="What computes on a CPU: torch, openvino or auto.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Click masks in a browser: serves the page on this machine alone, until Ctrl-C."""
    from sam2_blocks.engine.plugins import load_plugins
    from sam2_blocks.hosts import http
    from sam2_blocks.service import ServiceSettings, load_models

    create_app, run = http.create_app, http.serve  # fails now if the extra is missing
    if backend is not None:
        use_backend(backend)
    settings = ServiceSettings.from_environment(**OWN_PICTURES)
    folder = http.PageFolder(pictures, out).checked()
    warnings.simplefilter("ignore", PromptWarning)  # nobody reads them
    plugins = load_plugins()
    names = model or [os.environ.get("SAM2_VERSION_ID") or "nano"]
    served = load_models(names, plugins.executors, settings, device=device, dtype=dtype)
    app = create_app(served, settings, plugins=plugins, page=folder)
    try:
        run(app, port=port, listening=lambda url: _show(url, browser=browser))
    except KeyboardInterrupt:  # how one leaves
        screen.print("stopped")


def _show(url: str, *, browser: bool) -> None:
    """Say where the page is, and open it beside; a browser may take its time."""
    page = f"{url}/page/"
    screen.print(f"click masks at {page}, and stop with Ctrl-C", soft_wrap=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=[page], daemon=True).start()

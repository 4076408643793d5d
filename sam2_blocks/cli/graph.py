"""``sam2-blocks graph``: a checked pipeline as a picture."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.cli import screen
from sam2_blocks.cli.late import load_plugins
from sam2_blocks.cli.options import PipelineFile, Strict
from sam2_blocks.files.atomic import write_text


class Form(str, Enum):
    """What the picture is written as."""

    MERMAID = "mermaid"
    SVG = "svg"


def graph(
    pipeline: PipelineFile,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; the screen if not given. .svg is SVG."),
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--format", "-f", help="Mermaid text, or SVG.")
    ] = None,
    strict_plugins: Strict = False,
) -> None:
    """Draw a pipeline, with the pipelines that it uses, as Mermaid text or SVG."""
    from sam2_blocks.language.graph import mermaid, svg

    plugins = load_plugins(strict=strict_plugins)
    screen.warn_of_broken(plugins)
    checked = plugins.load_pipeline(pipeline)
    is_svg = form is Form.SVG or (form is None and out is not None and out.suffix == ".svg")
    text = (svg if is_svg else mermaid)(checked)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)

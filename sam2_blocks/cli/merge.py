"""``sam2-blocks merge``: the parts of a run → one file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.cli import screen
from sam2_blocks.cli.screen import safe


class Target(str, Enum):
    """What parts become."""

    COCO = "coco"
    YOLO = "yolo"
    PARQUET = "parquet"


def merge(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URL of the parts.")],
    to: Annotated[Target, typer.Option("--to", help="What to make of them.")],
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Where it goes: a file; for YOLO a folder."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="The output with the detections, of several.")
    ] = None,
) -> None:
    """Join the Parquet parts of a run, of all its shards, into one file."""
    from sam2_blocks.runs.merge import merge_parts

    merged = merge_parts(folder, to.value, path=file, output=output)
    failed = f"; {merged.failed} failed, see errors-*.parquet" if merged.failed else ""
    screen.print_result(f"{merged.items} items in {safe(str(merged.path))}{failed}")

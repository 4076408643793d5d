"""Options and exit codes that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ITEMS_FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130

PipelineFile = Annotated[Path, typer.Argument(help="Pipeline, a YAML file.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict-plugins", help="A broken plugin is an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

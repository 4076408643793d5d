"""Options and exit codes that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.errors import UsageError

ITEMS_FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130

PipelineFile = Annotated[Path, typer.Argument(help="Pipeline, a YAML file.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict-plugins", help="A broken plugin is an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def use_backend(name: str) -> None:
    """Let a backend compute whatever asks for none, in this process and those that it starts.

    Raises:
        UsageError: if there is none of this name, or it is not installed.
    """
    from sam2_blocks.executor.backends import BACKEND_VARIABLE, find_backend_problem

    problem = find_backend_problem(name)
    if problem:
        raise UsageError(f"--backend {name!r}: {problem}")
    os.environ[BACKEND_VARIABLE] = name  # a program of our own may set what a library must not

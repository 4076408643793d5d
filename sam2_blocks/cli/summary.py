"""The last words of a run: how many items, what failed, how fast, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from sam2_blocks.cli import screen
from sam2_blocks.cli.options import ITEMS_FAILED
from sam2_blocks.cli.screen import safe

if TYPE_CHECKING:
    from sam2_blocks.hosts.ray.launch import RayRun
    from sam2_blocks.runs.run import Run

LEAST_SHOWN = 0.005
"""Shares that would be shown as 0 % are left out."""


def sum_up(under_way: Run | RayRun, finished: int, folder: str, *, seconds: float) -> None:
    """Print the summary of a run that came to its end.

    Args:
        under_way: the run.
        finished: number of items that came to an end in it.
        folder: where the results are.
        seconds: that it took.

    Raises:
        Exit: if items failed.
    """
    done = finished - len({error.item for error in under_way.errors})
    summary = f"{done} of {finished} done" if finished else "nothing is left to do"
    screen.print_result(f"{summary}, in {safe(folder)}")
    if len(under_way.errors) > 1:
        from sam2_blocks.cli.tables import failures_by_kind

        screen.print_result(f"failures: {failures_by_kind(under_way.errors)}")
    if finished > 1:
        screen.print_result(_speed(finished, seconds, under_way.seconds))
    if under_way.errors:
        raise typer.Exit(ITEMS_FAILED)


def _speed(finished: int, seconds: float, spent: Mapping[str, float]) -> str:
    from sam2_blocks.clock import shares

    found = {name: share for name, share in shares(spent).items() if share >= LEAST_SHOWN}
    parts = ", ".join(f"{safe(name)} {share:.0%}" for name, share in found.items())
    return f"{finished / seconds:.3g} items/s; the work was {parts or 'nothing'}"

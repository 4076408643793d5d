"""``sam2-blocks run --on ray``: gives over to the launcher, and shows how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import Progress

from sam2_blocks.cli import screen
from sam2_blocks.cli.options import INTERRUPTED
from sam2_blocks.cli.screen import err, out
from sam2_blocks.errors import UsageError

if TYPE_CHECKING:
    from sam2_blocks.hosts.ray.launch import RayRun

ELSEWHERE = ("--shard", "--trace", "--report", "--backend")
"""Options of a run in this process that say nothing on a cluster."""

ALONE = ("--address", "--workers", "--gpus-per-worker")


def check_options(*, on_ray: bool, form: str | None, given: Mapping[str, Any]) -> None:
    """Refuse options that do not go together, and see that Ray is there before anything loads.

    Args:
        on_ray: whether ``--on ray`` is given.
        form: value of ``--format``.
        given: values of the options of `ELSEWHERE` and `ALONE`; None or False where not given.

    Raises:
        UsageError: if there is one that does not.
        MissingExtraError: if Ray is not installed.
    """
    is_given = {name for name, value in given.items() if value is not None and value is not False}
    wrong = [name for name in (ELSEWHERE if on_ray else ALONE) if name in is_given]
    if wrong and on_ray:
        raise UsageError(f"{wrong[0]} is for a run in one process; leave it out with --on ray.")
    if wrong:
        raise UsageError(f"{wrong[0]} is for a run on a cluster; add --on ray.")
    if on_ray and form == "folder":
        raise UsageError("--on ray writes Parquet parts alone; leave out --format folder.")
    if on_ray:
        from sam2_blocks.hosts.ray.cluster import load_ray

        load_ray()


def follow(under_way: RayRun, folder: str, *, quiet: bool) -> int:
    """Show one bar for all workers, and return how many items came to an end.

    Raises:
        Exit: if somebody interrupts; workers write what they have, and end.
    """
    on = out if out.is_terminal else err
    told = 0
    failures = screen.Failures(folder)
    try:
        with (
            under_way,
            Progress(console=on, transient=True, disable=quiet or not on.is_terminal) as progress,
        ):
            task = progress.add_task(f"running on {under_way.workers}", total=under_way.total)
            for beat in under_way:
                progress.update(task, completed=under_way.done)
                for error in beat.errors:
                    failures.show(error)
                if not quiet:
                    screen.print_notes(under_way.notes[told:])
                told = len(under_way.notes)
    except KeyboardInterrupt:
        screen.print_interrupted(under_way.done, under_way.total, folder)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        failures.show_rest()
    if under_way.done_before:
        out.print(f"{under_way.done_before} of {under_way.done} were done before")
    return under_way.done - under_way.done_before

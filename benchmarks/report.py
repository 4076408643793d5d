"""The results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.peers import Official, Ours
from benchmarks.scenarios import Row

COLUMNS = ("scenario", "case", "peer", "p50 ms", "p90 ms", "cpu ms", "extra MB", "ratio", "masks")


def print_table(rows: Sequence[Row]) -> None:
    """Print all rows."""
    table = Table(*COLUMNS)
    for column in table.columns[3:8]:
        column.justify = "right"
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row.peer == Ours.name else "")
    Console(width=140).print(table)


def save(
    rows: Sequence[Row], environment: dict[str, Any], settings: dict[str, Any], path: Path
) -> None:
    """Write the rows with everything needed to repeat them, and the picture beside them."""
    document = {
        "environment": environment,
        "settings": settings,
        "rows": [dict(zip(COLUMNS, _cells(row), strict=True)) | _figures(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    timed = [row for row in rows if row.peer == Ours.name and row.ratio is not None]
    if timed:
        _plot(timed, environment, path.with_suffix(".png"))


def _plot(rows: Sequence[Row], environment: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row.scenario}: {row.case}" for row in rows]
    bars = axes.barh(labels, [row.ratio or 0 for row in rows], color="#5b8def")
    axes.bar_label(bars, fmt="%.1f x", padding=3)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(f"times less than the {Official.name} predictor (memory: bytes, else: time)")
    processor, cores = environment["processor"], environment["cores"]
    axes.set_title(f"sam2_blocks on {processor}, {cores} cores", fontsize=10)
    figure.savefig(path, dpi=110)


def _cells(row: Row) -> tuple[str, ...]:
    timing = row.timing
    times = (timing.p50_ms, timing.p90_ms, timing.cpu_ms) if timing else (None,) * 3
    return (
        row.scenario,
        row.case,
        row.peer,
        *("" if figure is None else f"{figure:,.1f}" for figure in times),
        "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.note or str(row.equality or ""),
    )


def _figures(row: Row) -> dict[str, Any]:
    """The raw numbers behind the cells."""
    timing = row.timing
    return {
        "wall_s": timing.wall_s if timing else [],
        "cpu_s": timing.cpu_s if timing else [],
        "equal": None if row.equality is None else row.equality.differing == 0,
        "worst_flipped": None if row.equality is None else row.equality.worst_flipped,
    }

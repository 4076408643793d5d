"""The results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.int8 import OursInt8
from benchmarks.peers import (
    Official,
    Ours,
    OursCompiled,
    OursEncoderCompiled,
    OursFast,
    OursOpenVino,
    OursOpenVinoFast,
    OursPackaged,
)
from benchmarks.scenarios import Row

LEFT = ("scenario", "model", "case", "peer", "mode")
RIGHT = ("runs", "p50 ms", "p90 ms", "cpu ms", "extra MB", "ratio")
LAST = ("masks", "note")
COLOURS = {
    Ours.mode: "#5b8def",
    OursFast.mode: "#f0a04b",
    OursOpenVino.mode: "#2f4fa0",
    OursOpenVinoFast.mode: "#a06a1f",
    OursInt8.mode: "#5a3d12",
    OursCompiled.mode: "#c65d3b",
    OursEncoderCompiled.mode: "#d98a70",
    OursPackaged.mode: "#8a3d24",
}


def print_table(rows: Sequence[Row]) -> None:
    """Print all rows."""
    table = Table(*LEFT, *RIGHT, *LAST)
    for column in table.columns[len(LEFT) : len(LEFT) + len(RIGHT)]:
        column.justify = "right"
    for row in rows:
        table.add_row(*_cells(row).values(), style="bold" if row.peer == Ours.name else "")
    Console(width=200).print(table)


def save(rows: Sequence[Row], document: dict[str, Any], path: Path) -> None:
    """Write the rows beside what is needed to repeat them."""
    rows_json = [_cells(row) | _figures(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**document, "rows": rows_json}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n")


def plot(rows: Sequence[Row], environment: dict[str, Any], path: Path) -> None:
    """Draw how many times less than the official predictor each of our rows takes."""
    ours = [row for row in rows if row.peer == Ours.name and row.ratio is not None]
    if not ours:
        return
    figure = Figure(figsize=(9, 0.3 * len(ours) + 1.5), layout="constrained")
    axes = figure.subplots()
    labels = [" ".join(filter(None, (r.scenario, r.model, r.case, r.mode))) for r in ours]
    bars = axes.barh(
        labels, [row.ratio or 0 for row in ours], color=[COLOURS[row.mode] for row in ours]
    )
    axes.bar_label(bars, fmt="%.1f x", padding=3)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(f"times less than '{Official.label()}' (memory: bytes, else: time)")
    processor, cores = environment["processor"], environment["cores"]
    figure.suptitle(
        f"sam2_blocks {environment['commit']} on {processor}, {cores} cores, "
        f"torch {environment['torch']}, {environment['date']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=100)


def _cells(row: Row) -> dict[str, str]:
    timing = row.timing
    times = (timing.p50_ms, timing.p90_ms, timing.cpu_ms) if timing else (None,) * 3
    cells = (
        *(getattr(row, name) for name in LEFT),
        str(len(timing.wall_s)) if timing else "",
        *("" if figure is None else f"{figure:,.1f}" for figure in times),
        "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        ("FAILS: " if row.fails else "") + str(row.agreement or ""),
        row.note,
    )
    return dict(zip((*LEFT, *RIGHT, *LAST), cells, strict=True))


def _figures(row: Row) -> dict[str, Any]:
    """The raw numbers behind the cells."""
    return {
        "wall_s": row.timing.wall_s if row.timing else [],
        "cpu_s": row.timing.cpu_s if row.timing else [],
        "load_average": row.timing.load_average if row.timing else None,
        "agreement": asdict(row.agreement) if row.agreement else None,
        "gate": asdict(row.gate) if row.gate else None,
    }

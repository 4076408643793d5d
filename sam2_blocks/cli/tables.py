"""Detections as a table for people, and failures as a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table

from sam2_blocks.cli.screen import safe_name
from sam2_blocks.engine.records import ErrorRecord
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import detections_to_rows

if TYPE_CHECKING:
    import supervision as sv

MAX_ROWS = 20


def count_detections(value: Any) -> int | None:
    """Number of rows of detections; None for any other value."""
    import supervision as sv

    return len(value) if isinstance(value, sv.Detections) else None


def detections_table(detections: sv.Detections, title: str) -> Table:
    """Make a table of detections, at most `MAX_ROWS` rows; the title is markup."""
    table = Table(title=title)
    for column in ("#", "class", "confidence", "predicted IoU", "area px", "box xyxy"):
        table.add_column(column, overflow="fold")  # a narrow screen cuts nothing off
    shown = cast("sv.Detections", detections[:MAX_ROWS])
    for index, row in enumerate(detections_to_rows(shown, DumpOptions(polygons=False))):
        box = " ".join(f"{edge:.0f}" for edge in row["box_xyxy"])
        area = str(row.get("area_px", ""))
        name = safe_name(row.get("class_name", ""))
        scores = (_score(row, "confidence"), _score(row, "iou_prediction"))
        table.add_row(str(index), name, *scores, area, box)
    if len(detections) > MAX_ROWS:
        table.caption = f"and {len(detections) - MAX_ROWS} more"
    return table


def _score(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if key in row else ""


def failures_by_kind(errors: Sequence[ErrorRecord]) -> str:
    """Count what went wrong by step and kind of error, the most frequent first."""
    kinds = Counter((error.step, error.cause) for error in errors)
    return ", ".join(f"{count} {cause} in {step}" for (step, cause), count in kinds.most_common())

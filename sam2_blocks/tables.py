"""Detections as a table for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from sam2_blocks.detection_files import detections_to_rows

MAX_ROWS = 20


def detections_table(value: Any, title: str) -> Table | None:
    """Make a table of detections, at most `MAX_ROWS` rows; None for any other value."""
    import supervision as sv

    if not isinstance(value, sv.Detections):
        return None
    table = Table("#", "class", "confidence", "predicted IoU", "area px", "box xyxy", title=title)
    for index, row in enumerate(detections_to_rows(value[:MAX_ROWS])):  # type: ignore[arg-type]
        box = " ".join(f"{edge:.0f}" for edge in row["box_xyxy"])
        area = str(row.get("area_px", ""))
        name = str(row.get("class_name", ""))
        scores = (_score(row, "confidence"), _score(row, "iou_prediction"))
        table.add_row(str(index), name, *scores, area, box)
    if len(value) > MAX_ROWS:
        table.caption = f"and {len(value) - MAX_ROWS} more"
    return table


def _score(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if key in row else ""

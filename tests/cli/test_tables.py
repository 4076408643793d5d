from __future__ import annotations

from rich.console import Console

from sam2_blocks.cli.tables import (
    MAX_ROWS,
    count_detections,
    detections_table,
    failures_by_kind,
)
from sam2_blocks.engine.records import ErrorRecord
from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.testing import sample_detections


def text_of(table, width=120):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_row_tells_class_scores_area_and_box():
    text = text_of(detections_table(sample_detections(), "a.png: predictions"))
    assert "a.png: predictions" in text
    [face] = [line for line in text.splitlines() if "face" in line]
    assert [cell.strip() for cell in face.split("│")[1:-1]] == [
        "0", "face", "0.90", "0.75", "120", "2 3 11 14",
    ]  # fmt: skip


def test_a_narrow_screen_cuts_nothing_off():
    found = rows_to_detections([{"box_xyxy": [1000, 200, 3100, 1411], "confidence": 0.91}])
    text = text_of(detections_table(found, "t"), width=38)
    assert "…" not in text
    box = [line.split("│")[-2].strip() for line in text.splitlines() if line.count("│") > 1]
    assert "".join(box) == "100020031001411"


def test_brackets_in_names_are_no_markup():
    found = rows_to_detections([{"box_xyxy": [1, 2, 3, 4], "class_name": "[red]cup"}])
    assert "[red]cup" in text_of(detections_table(found, "a.png"))


def test_a_long_table_says_how_many_are_left_out():
    found = rows_to_detections([[0, 0, 1, 1]] * (MAX_ROWS + 3))
    assert "and 3 more" in text_of(detections_table(found, "t"))


def test_only_detections_are_counted():
    assert count_detections(sample_detections()) == 2
    assert count_detections([1, 2]) is None


def test_failures_are_counted_by_step_and_kind():
    kinds = [("inputs", "ImageError"), ("find", "ValueError"), ("inputs", "ImageError")]
    errors = [ErrorRecord(str(n), step, "", "", cause) for n, (step, cause) in enumerate(kinds)]
    assert failures_by_kind(errors) == "2 ImageError in inputs, 1 ValueError in find"

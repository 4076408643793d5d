from __future__ import annotations

import json

import pytest

from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import detections_to_rows, rows_to_detections
from sam2_blocks.testing import sample_detections


def test_rows_become_detections_and_rows_again():
    rows = [
        {"box_xyxy": [1, 2, 3, 4], "class_name": "cup", "class_id": 3, "confidence": 0.5},
        {"box_xyxy": [5, 6, 7, 8], "class_name": "spoon", "class_id": 1, "confidence": 0.25},
    ]
    written = detections_to_rows(rows_to_detections(rows))
    assert [{key: row[key] for key in rows[0]} for row in written] == rows


def test_masks_are_written_as_run_lengths_and_outlines_that_json_can_hold():
    [row, _] = json.loads(json.dumps(detections_to_rows(sample_detections())))
    assert row["segmentation"]["size"] == [24, 32]
    assert row["area_px"] == 120
    assert row["polygons"]
    [bare, _] = detections_to_rows(sample_detections(), DumpOptions(polygons=False))
    assert "polygons" not in bare


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"class_name": "cup"}], "row 0: wants box_xyxy"),
        ([[1, 2, 3, 4], [1, 2, 3]], "row 1"),
        ([[1, 2, float("nan"), 4]], "row 0"),
    ],
)
def test_a_row_that_is_no_box_is_named(rows, message):
    with pytest.raises(ValueError, match=message):
        rows_to_detections(rows)

from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats import rows
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import (
    boxes_to_detections,
    detections_to_rows,
    each_to_rows,
    rows_to_detections,
    settle_wrong,
)
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import coco_to_rle, rle_to_coco
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


def test_a_row_has_the_mask_as_it_is_now():
    found = sample_detections()
    found.mask = found.mask.with_offset(1, 2, (40, 50))
    found.data["rle_mask"] = [{"size": [1, 1], "counts": "01"}] * 2
    row = detections_to_rows(found)[0]
    assert row["segmentation"]["size"] == [40, 50]
    assert np.array_equal(coco_to_rle(row["segmentation"]).counts, to_rles(found)[0].counts)
    assert row["area_px"] == 120
    assert min(row["polygons"][0]) == 3
    assert "rle_mask" not in row


def test_run_lengths_alone_are_masks_in_rows():
    found = sample_detections()
    wanted = [row["segmentation"] for row in detections_to_rows(found)]
    found.data["rle_mask"] = [rle_to_coco(rle) for rle in to_rles(found)]
    found.mask = None
    assert [row["segmentation"] for row in detections_to_rows(found)] == wanted


def test_boxes_have_no_mask_and_numpy_s_numbers_are_python_s():
    found = boxes_to_detections([rows.Box((0, 1, 2, 3))])
    found.data["speed"] = np.array([1.5], np.float32)
    [row] = detections_to_rows(found)
    assert json.loads(json.dumps(row)) == row
    assert row["speed"] == 1.5
    assert "segmentation" not in row


def test_noise_has_no_outline(monkeypatch):
    monkeypatch.setattr(rows, "MAX_TRACED_RUNS", 3)
    assert "polygons" not in detections_to_rows(sample_detections(1))[0]
    assert (
        "polygons" not in detections_to_rows(sample_detections(1), DumpOptions(polygons=False))[0]
    )


def test_names_without_ids_have_distinct_numbers():
    rows = [
        {"box_xyxy": [1, 2, 3, 4], "class_name": "cat"},
        {"box_xyxy": [1, 2, 3, 4], "class_name": "dog"},
        {"box_xyxy": [1, 2, 3, 4], "class_name": "bird", "class_id": 1},
        {"box_xyxy": [1, 2, 3, 4], "class_name": "cat"},
        {"box_xyxy": [1, 2, 3, 4], "class_name": "bird"},
    ]
    assert rows_to_detections(rows).class_id.tolist() == [0, 2, 1, 0, 1]
    numbers = {"dog": 7}
    assert rows_to_detections(rows, numbers).class_id.tolist() == [0, 7, 1, 0, 1]
    assert numbers == {"dog": 7, "cat": 0}
    assert rows_to_detections([[1, 2, 3, 4]]).class_id.tolist() == [0]


@pytest.mark.parametrize("together", [1, 10**9])
def test_rows_of_many_pictures_are_those_of_each(monkeypatch, together):
    monkeypatch.setattr(rows, "TRACED_TOGETHER", together)
    noise = sample_detections(1)
    noise.mask = np.random.default_rng(0).integers(0, 2, (1, 24, 32)).astype(bool)
    many = [sample_detections(), sample_detections(0), boxes_to_detections([]), noise]
    expected = [detections_to_rows(found) for found in many]
    assert list(each_to_rows(many)) == expected
    bare = DumpOptions(polygons=False)
    assert list(each_to_rows(many, bare)) == [detections_to_rows(found, bare) for found in many]


def test_rows_are_made_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(rows, "TRACED_TOGETHER", 1)
    read = []

    def many():
        for number in range(3):
            read.append(number)
            yield sample_detections()

    next(each_to_rows(many()))
    assert read == [0]


def test_the_first_wrong_entry_is_refused_or_all_are_left_out_with_a_warning():
    wrong = ["row 1 is short", "row 4 is long"]
    with pytest.raises(ValueError, match=r"^row 1 is short$"):
        settle_wrong(wrong, "rows", skip=False)
    with pytest.warns(FileWarning, match=r"^a\.json: left out 2 rows: row 1 is short$"):
        settle_wrong(wrong, "rows", skip=True, source="a.json")
    with pytest.warns(FileWarning, match=r"^left out 2 rows: row 1 is short$"):
        settle_wrong(wrong, "rows", skip=True)
    settle_wrong([], "rows", skip=False)

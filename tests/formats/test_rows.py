import json

import numpy as np
import pytest

from sam2_blocks.formats import rows
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import boxes_to_detections, detections_to_rows, load_json
from sam2_blocks.kinds import sample_detections
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import coco_to_rle, rle_to_coco


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


def test_our_own_files_are_read_and_named(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"detections": detections_to_rows(sample_detections())}))
    assert load_json(file).data["class_name"].tolist() == ["face", "object"]
    file.write_text('{"detections": [[1]]}')
    with pytest.raises(ValueError, match=r"a\.json: row 0: wants box_xyxy"):
        load_json(file)

from __future__ import annotations

from sam2_blocks.testing import sample_detections


def test_polygons_say_how_exact_they_are(run_one_step):
    result = run_one_step("masks/polygons@v1", {"predictions": sample_detections()})
    first, second = result.outputs["polygons"]
    assert first["class_name"] == "face"
    assert first["iou"] == second["iou"] == 1.0
    assert sorted(map(tuple, first["outer"][0])) == [(2, 3), (2, 15), (12, 3), (12, 15)]

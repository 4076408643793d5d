from __future__ import annotations

import pytest

from sam2_blocks.testing import sample_detections


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, ["face", "object"]),
        ({"classes": ["face"]}, ["face"]),
        ({"min_confidence": 0.7}, ["face"]),
        ({"min_area": 150}, ["object"]),
        ({"max_area": 150}, ["face"]),
        ({"max_count": 1}, ["face"]),
        ({"max_count": 0}, []),
    ],
)
def test_filter_keeps_what_passes(run_one_step, params, kept):
    found = sample_detections()
    result = run_one_step("detections/filter@v1", {"detections": found}, params)
    passed = result.outputs["detections"]
    assert passed.data["class_name"].tolist() == kept
    assert len(passed.mask) == len(kept)


def test_filter_by_class_wants_class_names(run_one_step):
    found = sample_detections()
    del found.data["class_name"]
    result = run_one_step("detections/filter@v1", {"detections": found}, {"classes": ["a"]})
    assert "cannot filter by class" in result.errors[0].message


def test_filter_takes_boxes_without_confidence_as_certain(run_one_step):
    from sam2_blocks.formats.rows import rows_to_detections

    found = rows_to_detections([[0, 0, 9, 9]])
    result = run_one_step("detections/filter@v1", {"detections": found}, {"min_confidence": 0.9})
    assert len(result.outputs["detections"]) == 1

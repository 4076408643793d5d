from __future__ import annotations

import pytest

from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.testing import check_block, sample_detections

BLOCK = "detections/merge@v1"


def rows(*boxes, **more):
    more = {"confidence": 0.5, **more}
    return rows_to_detections([{"box_xyxy": list(box), **more} for box in boxes])


def test_examples(plugins):
    check_block(BLOCK, plugins=plugins)


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 2),
        ({"method": "all"}, 4),
        ({"method": "weighted"}, 2),
        ({"class_agnostic": True}, 1),
        ({"iou": 0.9}, 3),
    ],
)
def test_what_two_find_alike_stays_once(run_one_step, params, count):
    cat = {"class_name": "cat", "class_id": 0}
    inputs = {
        "first": rows((0, 0, 10, 10), **cat),
        "second": rows((0, 0, 10, 8), **cat),
        "third": rows((0, 0, 10, 10), class_name="dog", class_id=1),
        "fourth": rows((0, 0, 10, 10), **cat),
    }
    found = run_one_step(BLOCK, inputs, params).outputs["detections"]
    assert len(found) == count


def test_fewer_detectors_are_less_certain_about_an_average(run_one_step):
    inputs = {"first": rows((0, 0, 10, 10)), "second": rows((0, 0, 10, 10), (20, 0, 30, 10))}
    found = run_one_step(BLOCK, inputs, {"method": "weighted"}).outputs["detections"]
    assert found.confidence.tolist() == pytest.approx([0.5, 0.25])


def test_masks_cannot_be_averaged(run_one_step):
    inputs = {"first": sample_detections(), "second": sample_detections()}
    assert len(run_one_step(BLOCK, inputs).outputs["detections"].mask) == 2
    [error] = run_one_step(BLOCK, inputs, {"method": "weighted"}).errors
    assert "boxes can be averaged, masks cannot" in error.message


@pytest.mark.parametrize("method", ["nms", "weighted", "all"])
def test_a_list_without_confidences_takes_nobody_elses(run_one_step, method):
    drawn = rows_to_detections([{"box_xyxy": [40, 0, 50, 10]}])
    sure, unsure = rows((0, 0, 10, 10), confidence=0.75), rows((0, 0, 10, 10), confidence=0.25)
    inputs = {"first": unsure, "second": sure, "third": drawn}
    found = run_one_step(BLOCK, inputs, {"method": method}).outputs["detections"]
    wanted = {"nms": [0.75, 1], "weighted": [0.5 * 2 / 3, 1 / 3], "all": [0.25, 0.75, 1]}
    assert found.confidence.tolist() == pytest.approx(wanted[method])

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from tests.hosts.roboflow.conftest import (
    BOXES,
    DRAW,
    IGNORED,
    IMAGE,
    PREDICTIONS,
    SEGMENT,
    detector_output,
    picture,
    run_one,
)

pytestmark = pytest.mark.filterwarnings(IGNORED)

CLICKED = {**SEGMENT, "points": "$inputs.clicks"}
CLICKS = {"type": "WorkflowParameter", "name": "clicks", "kind": ["labeled_points"]}
CLICKS_OF_EACH = {"type": "WorkflowBatchInput", "name": "clicks", "kind": ["labeled_points"]}


def test_every_picture_of_a_batch_has_its_boxes_and_the_click(start):
    engine = start([CLICKED, *DRAW], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS])
    counts = (2, 0, 1)
    results = engine.run(
        runtime_parameters={
            "image": [picture(n) for n in range(3)],
            "boxes": [detector_output(count) for count in counts],
            "clicks": [(200, 100)],
        }
    )
    for count, result in zip(counts, results, strict=True):
        found = result["predictions"]
        assert found.class_id.tolist() == [*range(count), -1]
        assert found.xyxy[-1].tolist() == [198, 98, 202, 102]
        assert len(set(found.data["detection_id"])) == count + 1


def test_each_picture_may_have_clicks_of_its_own_or_none(start):
    engine = start([CLICKED], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS_OF_EACH])
    results = engine.run(
        runtime_parameters={
            "image": [picture(), picture(1)],
            "boxes": [detector_output(1)] * 2,
            "clicks": [[{"x": 200, "y": 100}], []],
        }
    )
    assert [len(result["predictions"]) for result in results] == [2, 1]


def test_a_click_on_the_object_of_a_box_has_an_id_of_its_own(start):
    engine = start([CLICKED], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS])
    box = sv.Detections(np.array([[198.0, 98, 203, 103]]))
    found = run_one(engine, image=picture(), boxes=box, clicks=[(200, 100)])["predictions"]
    assert np.array_equal(found.mask[0], found.mask[1])
    assert len(set(found.data["detection_id"])) == 2
    again = run_one(engine, image=picture(), boxes=box, clicks=[(200, 100)])["predictions"]
    assert again.data["detection_id"].tolist() == found.data["detection_id"].tolist()


def test_a_click_beside_tracked_boxes_is_on_no_track(start):
    engine = start([CLICKED], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS])
    boxes = sv.Detections(np.array([[40.0, 45, 80, 75]]), tracker_id=np.array([3]))
    found = run_one(engine, image=picture(), boxes=boxes, clicks=[(200, 100)])["predictions"]
    assert found.tracker_id.tolist() == [3, -1]


@pytest.mark.parametrize("extra_columns", [False, True])
def test_columns_are_those_of_boxes_alone(start, extra_columns):
    step = {**CLICKED, "extra_columns": extra_columns}
    given = {"image": picture(), "boxes": detector_output(2)}
    engine = start([step], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS])
    both = run_one(engine, clicks=[(200, 100)], **given)["predictions"]
    alone = run_one(engine, clicks=[], **given)["predictions"]
    assert set(alone.data) == set(both.data)
    assert {name: column.dtype.kind for name, column in both.data.items()} == {
        name: column.dtype.kind for name, column in alone.data.items()
    }


def test_columns_of_the_boxes_are_empty_for_clicks(start):
    boxes = sv.Detections(np.array([[40.0, 45, 80, 75]]))
    boxes.data |= {"colour": np.array(["red"]), "weight": np.array([2.5])}
    step = {**CLICKED, "extra_columns": True}
    engine = start([step], PREDICTIONS, inputs=[IMAGE, BOXES, CLICKS])
    found = run_one(engine, image=picture(), boxes=boxes, clicks=[(200, 100)])["predictions"]
    assert found.data["colour"].tolist() == ["red", ""]
    assert found.data["weight"][0] == 2.5
    assert np.isnan(found.data["weight"][1])


def test_prompts_in_our_form_refine_the_boxes(start):
    prompts = [{"point_coords": [[60, 60]]}, {"point_coords": [[90, 80]]}]
    engine = start([{**SEGMENT, "prompts": prompts}], PREDICTIONS)
    found = run_one(engine, image=picture(), boxes=detector_output(2))["predictions"]
    assert found.class_id.tolist() == [0, 1]


def test_as_many_boxes_as_prompts_are_wanted(start):
    from roboflow_workflows.errors import StepExecutionError

    engine = start([{**SEGMENT, "prompts": [{"point_coords": [[60, 60]]}]}], PREDICTIONS)
    with pytest.raises(StepExecutionError, match="got 2 boxes and 1 prompts"):
        run_one(engine, image=picture(), boxes=detector_output(2))

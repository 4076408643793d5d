"""What Roboflow's own tests of its SAM 2 and interactive blocks expect, asked of ours.

Source: roboflow/inference, ``tests/workflows`` (``test_workflow_with_sam2.py``,
``test_segment_anything2.py``, ``test_segment_anything3_interactive.py``); the same inputs and
expectations, written anew. What differs is in ``docs/coming-from/roboflow.md``.
"""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from tests.hosts.roboflow.conftest import BOXES, HW, IGNORED, IMAGE, PREDICTIONS, picture, run_one

pytestmark = pytest.mark.filterwarnings(IGNORED)

STEP = {"type": "sam2_blocks/segment@v1", "name": "segment"}
PARAMETERS = [
    {"type": "WorkflowParameter", "name": "mask_threshold", "default_value": 0.0},
    {"type": "WorkflowParameter", "name": "version", "default_value": "hiera_tiny"},
]
SIMPLE = {
    **STEP,
    "images": "$inputs.image",
    "threshold": "$inputs.mask_threshold",
    "version": "$inputs.version",
}


@pytest.fixture(scope="session")
def manifest(engine_class):
    """The class that checks a step."""
    from sam2_blocks.hosts import roboflow

    blocks = [block.get_manifest() for block in roboflow.load_blocks()]
    return next(b for b in blocks if b.__name__ == "Sam2_Blocks_Segment_V1Manifest")


def dog(**columns):
    data = {"class_name": np.array(["object"]), "detection_id": np.array(["det_1"]), **columns}
    return sv.Detections(
        np.array([[10, 10, 50, 50]]), None, np.array([0.9]), np.array([0]), None, data
    )


@pytest.mark.parametrize("alias", ["images", "image"])
def test_a_minimal_step_is_valid_by_both_names_of_the_picture(manifest, alias):
    made = manifest.model_validate({**STEP, alias: "$inputs.image"})
    assert made == manifest.model_validate({**STEP, "image": "$inputs.image"})


@pytest.mark.parametrize("version", ["hiera_large", "hiera_small", "hiera_tiny", "hiera_b_plus"])
def test_every_version_is_valid(manifest, version):
    made = manifest.model_validate({**STEP, "images": "$inputs.image", "version": version})
    assert made.model == version


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("threshold", "non-int"),
        ("multimask_output", "some"),
        ("version", 1),
        ("version", "wrong_version"),
        ("points", [{"x": 320}]),
        ("points", [[1, 2, 3, 4]]),
        ("points", ["here"]),
    ],
)
def test_a_wrong_parameter_is_refused(manifest, parameter, value):
    with pytest.raises(ValueError, match="validation error"):
        manifest.model_validate({**STEP, "images": "$inputs.image", parameter: value})


@pytest.mark.parametrize(
    "points",
    [
        [{"x": 320, "y": 240, "positive": True}, {"x": 100, "y": 100, "positive": False}],
        [[320, 240], [100, 100, False]],
        "$inputs.points",
    ],
)
def test_points_are_valid_as_mappings_sequences_and_selector(manifest, points):
    made = manifest.model_validate({**STEP, "images": "$inputs.image", "points": points})
    assert made.prompts == points


def test_a_picture_alone_is_segmented(start):
    engine = start([SIMPLE], PREDICTIONS, inputs=[IMAGE, *PARAMETERS])
    [result] = engine.run(runtime_parameters={"image": [picture()], "mask_threshold": 0.0})
    assert set(result) == {"predictions"}
    found = result["predictions"]
    assert found.data["class_name"].tolist() == ["foreground"]
    assert found.mask.shape == (1, *HW)
    assert found.data["prediction_type"][0] == "instance-segmentation"


def test_a_threshold_discards_what_the_model_is_less_sure_of(start):
    engine = start([SIMPLE], PREDICTIONS, inputs=[IMAGE, *PARAMETERS])
    [result] = engine.run(runtime_parameters={"image": [picture()], "mask_threshold": 0.9})
    assert len(result["predictions"]) == 0


def test_boxes_of_a_detector_give_their_classes_and_the_picture_is_the_parent(start):
    step = {**STEP, "images": "$inputs.image", "boxes": "$inputs.boxes", "threshold": 0.5}
    engine = start([step], PREDICTIONS, inputs=[IMAGE, BOXES])
    given = {"image": [picture(), picture(1)], "boxes": [dog(), dog()]}
    for index, result in enumerate(engine.run(runtime_parameters=given)):
        found = result["predictions"]
        assert found.data["class_name"].tolist() == ["object"]
        assert found.data["parent_id"].tolist() == [f"image.[{index}]"]
        assert np.allclose(found.xyxy, [[10, 10, 49, 49]])


def test_one_positive_and_one_negative_point_are_one_prompt(start):
    points = [{"x": 120, "y": 140, "positive": True}, {"x": 100, "y": 100, "positive": False}]
    engine = start([{**STEP, "images": "$inputs.image", "points": points}], PREDICTIONS)
    found = run_one(engine, image=picture(), boxes=dog())["predictions"]
    assert len(found) == 1


def test_no_detections_and_no_points_give_no_predictions(start):
    step = {**STEP, "images": "$inputs.image", "boxes": "$inputs.boxes"}
    engine = start([step], PREDICTIONS)
    found = run_one(engine, image=picture(), boxes=sv.Detections.empty())["predictions"]
    assert len(found) == 0


def test_points_alone_are_of_another_class_than_there(start):
    from roboflow_workflows.core_steps.models.foundation.segment_anything_common import (
        visual_prompt,
    )

    step = {**STEP, "images": "$inputs.image", "points": [{"x": 120, "y": 140}]}
    engine = start([step], PREDICTIONS, inputs=[IMAGE])
    found = run_one(engine, image=picture())["predictions"]
    ours = (found.data["class_name"].tolist(), found.class_id.tolist())
    theirs = (
        [visual_prompt.SYNTHETIC_POINT_PROMPT_CLASS_NAME],
        [visual_prompt.SYNTHETIC_POINT_PROMPT_CLASS_ID],
    )
    assert (ours, theirs) == ((["object"], [0]), (["foreground"], [-1]))


def test_no_block_gives_labeled_points(engine_class):
    from sam2_blocks.hosts import roboflow

    outputs = [
        kind.name
        for block in roboflow.load_blocks()
        for output in block.get_manifest().describe_outputs()
        for kind in output.kind
    ]
    assert "rle_instance_segmentation_prediction" in outputs
    assert not {"labeled_points", "prompts"} & set(outputs)

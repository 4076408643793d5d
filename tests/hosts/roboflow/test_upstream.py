"""What Roboflow's own tests of its SAM 2 and interactive blocks expect, asked of ours.

Source: roboflow/inference, ``tests/workflows`` (``test_workflow_with_sam2.py``,
``test_segment_anything2.py``, ``test_segment_anything3_interactive.py``); the same inputs and
expectations, written anew. ``tests/hosts/upstream.py`` counts them.
"""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.testing import FakeExecutor
from tests.hosts.roboflow.conftest import (
    BOXES,
    IGNORED,
    IMAGE,
    PREDICTIONS,
    picture,
    resources_of,
    run_one,
)

pytestmark = pytest.mark.filterwarnings(IGNORED)

DOGS = np.random.default_rng(0).integers(0, 256, (427, 640, 3), np.uint8)
SOME = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
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
    [result] = engine.run(runtime_parameters={"image": [DOGS], "mask_threshold": 0.0})
    assert set(result) == {"predictions"}
    found = result["predictions"]
    assert found.data["class_name"].tolist() == ["foreground"]
    assert found.mask.shape[1:] == (427, 640)
    assert found.data["prediction_type"][0] == "instance-segmentation"


def test_a_threshold_discards_what_the_model_is_less_sure_of(start):
    engine = start([SIMPLE], PREDICTIONS, inputs=[IMAGE, *PARAMETERS])
    [result] = engine.run(runtime_parameters={"image": [DOGS], "mask_threshold": 0.9})
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


def test_two_dogs_of_a_detector_are_two_masks_of_dogs(start):
    dogs = sv.Detections(
        np.array([[321, 223, 582, 405], [226, 73, 382, 381]]),
        None,
        np.array([0.9602, 0.93673]),
        np.array([16, 16]),
        None,
        {"class_name": np.array(["dog", "dog"]), "detection_id": np.array(["one", "other"])},
    )
    step = {**STEP, "images": "$inputs.image", "boxes": "$inputs.boxes"}
    step["threshold"] = "$inputs.mask_threshold"
    engine = start([step], PREDICTIONS, inputs=[IMAGE, BOXES, *PARAMETERS])
    given = {"image": [DOGS], "boxes": [dogs], "mask_threshold": 0.5}
    [result] = engine.run(runtime_parameters=given)
    assert set(result) == {"predictions"}
    found = result["predictions"]
    assert np.allclose(found.xyxy, dogs.xyxy, atol=1)
    assert np.allclose(found.confidence, [0.9602, 0.93673], atol=1e-4)
    assert found["class_name"].tolist() == ["dog", "dog"]
    assert found.data["parent_id"].tolist() == ["image.[0]", "image.[0]"]


@pytest.fixture
def asked(start):
    """``asked(points=…, boxes=…)``: predictions of our step, and the prompts of each call of it."""

    def run_step(*, points=None, boxes=None):
        resources, executor = resources_of(NotingExecutor)
        step = {**STEP, "images": "$inputs.image"}
        step |= {} if points is None else {"points": points}
        step |= {} if boxes is None else {"boxes": "$inputs.boxes"}
        engine = start([step], PREDICTIONS, resources=resources)
        found = run_one(engine, image=SOME, boxes=dog() if boxes is None else boxes)["predictions"]
        return found, executor.asked

    return run_step


class NotingExecutor(FakeExecutor):
    """Notes the prompts of each picture it segments."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def segment(self, items, **options):
        self.asked += [list(prompts.prompts) for _, prompts in items]
        return super().segment(items, **options)


POSITIVE_AND_NEGATIVE = [
    {"x": 320, "y": 240, "positive": True},
    {"x": 100, "y": 100, "positive": False},
]


def test_points_are_one_prompt_and_one_object_of_the_foreground(asked):
    found, [[prompt]] = asked(points=POSITIVE_AND_NEGATIVE)
    assert prompt.point_coords.tolist() == [[320, 240], [100, 100]]
    assert prompt.point_labels.tolist() == [1, 0]
    assert prompt.box_xyxy is None
    assert found.class_id.tolist() == [-1]
    assert found["class_name"].tolist() == ["foreground"]


def test_points_beside_boxes_are_one_object_more(asked):
    found, [[box], [click]] = asked(points=[[320, 240]], boxes=dog())
    assert box.box_xyxy.tolist() == [10, 10, 50, 50]
    assert box.point_coords is None
    assert click.box_xyxy is None
    assert click.point_coords.tolist() == [[320, 240]]
    assert found.class_id.tolist() == [0, -1]
    assert list(found["class_name"]) == ["object", "foreground"]


def test_no_detections_and_no_points_ask_for_nothing(asked):
    found, calls = asked(boxes=sv.Detections.empty())
    assert len(found) == 0
    assert [prompts for prompts in calls if prompts] == []


def test_points_take_their_class_from_where_theirs_do(engine_class):
    from roboflow_workflows.core_steps.models.foundation.segment_anything_common import (
        visual_prompt,
    )

    from sam2_blocks.hosts.roboflow.clicks import CLICKED_CLASS

    theirs = visual_prompt.SYNTHETIC_POINT_PROMPT_CLASS_NAME
    assert (theirs, visual_prompt.SYNTHETIC_POINT_PROMPT_CLASS_ID) == CLICKED_CLASS


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

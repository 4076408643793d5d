from __future__ import annotations

import warnings

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import FakeExecutor
from tests.hosts.roboflow.conftest import (
    BOXES,
    DRAW,
    IGNORED,
    IMAGE,
    PLUGIN,
    PREDICTIONS,
    SEGMENT,
    detector_output,
    picture,
    run_one,
)

pytestmark = pytest.mark.filterwarnings(IGNORED)

THEIR_BLOCK = {
    "type": "roboflow_core/segment_anything@v1",
    "name": "segment",
    "images": "$inputs.image",
    "boxes": "$inputs.boxes",
    "version": "hiera_tiny",
    "threshold": 0.1,
    "multimask_output": False,
}


@pytest.fixture(scope="session")
def described(engine_class):
    from roboflow_workflows.execution_engine.introspection.blocks_loader import (
        describe_available_blocks,
    )

    blocks = describe_available_blocks(dynamic_blocks=[], execution_engine_version="1.17.0").blocks
    return {
        block.manifest_type_identifier: block for block in blocks if block.block_source == PLUGIN
    }


def test_every_block_without_files_is_there(described):
    found = load_plugins(points=[]).manifests.values()
    free = [
        manifest.id.replace("/", "_")
        for manifest in found
        if manifest.file_access == "none" and not any(one.many for one in manifest.inputs.values())
    ]
    assert set(described) == {f"sam2_blocks/{name.removeprefix('sam2_')}" for name in free}
    assert {"sam2_blocks/segment@v1", "sam2_blocks/draw_masks@v1"} <= set(described)
    assert not [name for name in described if "export" in name or "load" in name]


def test_a_block_answers_to_its_own_id_too(described):
    assert described["sam2_blocks/draw_masks@v1"].manifest_type_identifier_aliases == [
        "draw/masks@v1"
    ]


def test_the_exact_kind_is_the_first_output(described):
    [output] = described["sam2_blocks/segment@v1"].outputs_manifest
    assert [kind.name for kind in output.kind] == [
        "rle_instance_segmentation_prediction",
        "instance_segmentation_prediction",
    ]


def test_nothing_is_restricted_since_all_of_it_runs_on_a_cpu(described):
    assert not any(block.restrictions for block in described.values())


def test_bounds_and_units_reach_the_schema(described):
    schema = described["sam2_blocks/segment@v1"].block_schema["properties"]
    literal = schema["min_confidence"]["anyOf"][0]
    assert (literal["minimum"], literal["maximum"]) == (0, 1)
    assert "Unit: px" in schema["max_hole_area"]["description"]


def test_every_compilation_gets_the_same_classes(engine_class):
    from sam2_blocks.hosts import roboflow

    assert roboflow.load_blocks() is roboflow.load_blocks()


def test_a_wrong_parameter_is_found_at_compilation(start):
    from roboflow_workflows.errors import WorkflowSyntaxError

    with pytest.raises(WorkflowSyntaxError) as caught:
        start([{**SEGMENT, "min_confidence": 2}], PREDICTIONS)
    assert "less than or equal to 1" in str(caught.value.inner_error)


def test_a_missing_picture_is_found_at_compilation(start):
    from roboflow_workflows.errors import WorkflowSyntaxError

    with pytest.raises(WorkflowSyntaxError) as caught:
        start([{**SEGMENT, "image": None}], PREDICTIONS)
    assert "give exactly one of 'image', 'embedding'" in str(caught.value.inner_error)


@pytest.mark.parametrize("name", ["model", "version"])
def test_an_unknown_model_is_found_at_compilation(start, name):
    from roboflow_workflows.errors import WorkflowSyntaxError

    step = {key: value for key, value in SEGMENT.items() if key != "model"}
    with pytest.raises(WorkflowSyntaxError) as caught:
        start([{**step, name: "hiera_tny"}], PREDICTIONS)
    message = str(caught.value.inner_error)
    assert "there is no model 'hiera_tny'. Did you mean 'hiera_tiny'" in message


def test_without_prompts_the_picture_is_segmented_as_in_their_block(start):
    step = {key: value for key, value in SEGMENT.items() if key != "boxes"}
    engine = start([step, *DRAW], PREDICTIONS, inputs=[IMAGE])
    found = run_one(engine, image=picture())["predictions"]
    assert (found.data["class_name"].tolist(), found.class_id.tolist()) == (["foreground"], [0])


def test_labeled_points_are_one_object(start):
    clicks = {"type": "WorkflowParameter", "name": "clicks", "kind": ["labeled_points"]}
    step = {**SEGMENT, "points": "$inputs.clicks"}
    del step["boxes"]
    given = [{"x": 50, "y": 60}, {"x": 55, "y": 60, "positive": False}]
    engine = start([step], PREDICTIONS, inputs=[IMAGE, clicks])
    found = run_one(engine, image=picture(), clicks=given)["predictions"]
    written = start([{**step, "points": [(50, 60), (55, 60, False)]}], PREDICTIONS, inputs=[IMAGE])
    same = run_one(written, image=picture())["predictions"]
    assert len(found) == 1
    assert found.xyxy.tolist() == same.xyxy.tolist()


def test_tensor_mode_is_refused_at_compilation(engine_class):
    from sam2_blocks import load_plugins
    from sam2_blocks.hosts.roboflow.blocks import workflow_manifest
    from sam2_blocks.hosts.roboflow.engine import load_engine

    plugins, engine = load_plugins(points=[]), load_engine()._replace(hands_over_tensors=True)
    segment = workflow_manifest(plugins.manifests["sam2/segment@v1"], plugins, engine)
    with pytest.raises(ValueError, match="set ENABLE_TENSOR_DATA_REPRESENTATION=False"):
        segment.model_validate(SEGMENT)
    embed = workflow_manifest(plugins.manifests["sam2/embed@v1"], plugins, engine)
    embed.model_validate({"type": "sam2/embed@v1", "name": "embed", "image": "$inputs.image"})


def test_a_missing_package_is_found_at_compilation(engine_class):
    from sam2_blocks import load_plugins
    from sam2_blocks.hosts.roboflow.blocks import workflow_manifest
    from sam2_blocks.hosts.roboflow.engine import load_engine

    plugins = load_plugins(points=[])
    manifest = plugins.manifests["sam2/segment@v1"]
    lacking = manifest.model_copy(update={"requires": {"no_such_package": "no-such[extra]"}})
    step = workflow_manifest(lacking, plugins, load_engine())
    with pytest.raises(ValueError, match=r"'no_such_package', which is not installed\. Run: pip"):
        step.model_validate(SEGMENT)


def test_models_are_known_to_the_engine(described, start):
    schema = described["sam2_blocks/segment@v1"].block_schema["properties"]["model"]
    [names] = [one["enum"] for one in schema["anyOf"] if "enum" in one]
    theirs = {"hiera_large", "hiera_small", "hiera_tiny", "hiera_b_plus"}
    assert theirs <= set(names)
    [step] = start([SEGMENT], PREDICTIONS)._engine._compiled_workflow.workflow_definition.steps
    [needed] = step.discover_dependent_resources()
    assert (needed.metadata.provider, needed.metadata.model_id) == ("sam2_blocks", "nano")
    assert theirs <= set(step.get_supported_model_variants())


def test_a_wrong_kind_is_found_at_compilation(start):
    from roboflow_workflows.errors import ReferenceTypeError

    with pytest.raises(ReferenceTypeError):
        start([{**SEGMENT, "boxes": "$inputs.image"}], PREDICTIONS)


def test_their_block_is_replaced_by_changing_its_type(start, engine_class):
    loaded = []

    def load(model, **_):
        loaded.append(model)
        return FakeExecutor()

    resources = Resources({"sam2": load})
    step = {**THEIR_BLOCK, "type": "sam2_blocks/segment@v1"}
    engine = start(
        [step, *DRAW], {**PREDICTIONS, "drawn": "$steps.mask.image"}, resources=resources
    )
    result = run_one(engine, image=picture(), boxes=detector_output(2))
    assert loaded == ["hiera_tiny"]
    assert len(result["predictions"]) == 2


def test_the_default_model_is_that_of_their_block(start):
    loaded = []
    resources = Resources({"sam2": lambda model, **_: loaded.append(model) or FakeExecutor()})
    step = {key: value for key, value in SEGMENT.items() if key != "model"}
    run_one(
        start([step], PREDICTIONS, resources=resources), image=picture(), boxes=detector_output(1)
    )
    assert loaded == ["hiera_tiny"]


def test_a_parameter_from_the_workflows_inputs_is_checked_when_it_runs(start):
    from roboflow_workflows.errors import RuntimeInputError

    floor = {"type": "WorkflowParameter", "name": "floor", "default_value": 0.8}
    step = {**SEGMENT, "min_confidence": "$inputs.floor"}
    engine = start([step], PREDICTIONS, inputs=[IMAGE, BOXES, floor])
    given = {"image": picture(), "boxes": detector_output(2)}
    assert len(run_one(engine, **given)["predictions"]) == 0  # the fake model says 0.75
    assert len(run_one(engine, **given, floor=0.5)["predictions"]) == 2
    with pytest.raises(RuntimeInputError) as caught:
        run_one(engine, **given, floor=7.0)
    assert "less than or equal to 1" in str(caught.value.inner_error)


def test_steps_that_a_condition_skips_leave_a_gap(start):
    counted = {
        "type": "DynamicOperand",
        "operand_name": "boxes",
        "operations": [{"type": "SequenceLength"}],
    }
    statement = {
        "type": "BinaryStatement",
        "left_operand": counted,
        "comparator": {"type": "(Number) >"},
        "right_operand": {"type": "StaticOperand", "value": 0},
    }
    gate = {
        "type": "roboflow_core/continue_if@v1",
        "name": "gate",
        "condition_statement": {"type": "StatementGroup", "statements": [statement]},
        "evaluation_parameters": {"boxes": "$inputs.boxes"},
        "next_steps": ["$steps.segment"],
    }
    polygons = {"type": "sam2_blocks/masks_polygons@v1", "name": "polygons"}
    polygons["predictions"] = "$steps.segment.predictions"
    engine = start([gate, SEGMENT, polygons], {"polygons": "$steps.polygons.polygons"})
    counts = (1, 0, 2)
    results = engine.run(
        runtime_parameters={
            "image": [picture()] * 3,
            "boxes": [detector_output(count) for count in counts],
        }
    )
    found = [result["polygons"] for result in results]
    assert found[1] is None
    assert [len(found[0]), len(found[2])] == [1, 2]


def test_prompts_come_from_the_workflows_inputs(start):
    clicks = {"type": "WorkflowParameter", "name": "clicks", "kind": ["prompts"]}
    step = {**SEGMENT, "prompts": "$inputs.clicks"}
    del step["boxes"]
    engine = start([step], PREDICTIONS, inputs=[IMAGE, clicks])
    found = run_one(engine, image=picture(), clicks=[{"point_coords": [[50, 60]]}])["predictions"]
    assert found.xyxy.tolist() == [[48, 58, 52, 62]]


@pytest.fixture(scope="session")
def nano():
    """Resources that load ``nano`` once."""
    from sam2_blocks import load_plugins

    resources = load_plugins(points=[]).resources()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the embedded weights of 'nano' are missing")
        resources.executor("nano", device="cpu")
    return resources


def no_torch(model, **_):
    raise ModuleNotFoundError("No module named 'torch'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "hiera_large"}, "offline"),
        ({"model": "nano", "device": "cuda"}, "cuda"),
    ],
)
def test_a_bad_model_is_the_engines_error_with_our_message(
    start, monkeypatch, tmp_path, changes, message
):
    from roboflow_workflows.errors import StepExecutionError

    from sam2_blocks import load_plugins

    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    monkeypatch.setenv("SAM2_BLOCKS_CACHE", str(tmp_path))
    engine = start(
        [{**SEGMENT, **changes}], PREDICTIONS, resources=load_plugins(points=[]).resources()
    )
    with pytest.raises(StepExecutionError) as caught:
        run_one(engine, image=picture(), boxes=detector_output(1))
    assert message in str(caught.value)
    assert "step 'segment' (sam2/segment@v1)" in str(caught.value)


def test_a_missing_torch_is_the_engines_error_with_our_message(start):
    from roboflow_workflows.errors import StepExecutionError

    engine = start([SEGMENT], PREDICTIONS, resources=Resources({"sam2": no_torch}))
    with pytest.raises(StepExecutionError, match="No module named 'torch'"):
        run_one(engine, image=picture(), boxes=detector_output(1))


def test_a_box_outside_the_picture_names_the_picture(start):
    from roboflow_workflows.errors import StepExecutionError

    outside = sv.Detections(np.array([[900.0, 900, 950, 950]]))
    engine = start([{**SEGMENT, "on_bad_prompt": "error"}], PREDICTIONS)
    with pytest.raises(
        StepExecutionError, match=r"item 1 of 2: prompt 0: box .* lies wholly outside"
    ):
        engine.run(
            runtime_parameters={
                "image": [picture()] * 2,
                "boxes": [detector_output(1), outside],
            }
        )

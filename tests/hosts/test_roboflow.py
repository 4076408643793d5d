"""Our blocks inside the real engine of Roboflow Workflows, offline."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import supervision as sv

pytest.importorskip("roboflow_workflows")

from pycocotools import mask as coco

from sam2_blocks import Image, read_image
from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.rle import mask_to_rle, rles_to_boxes_xyxy
from sam2_blocks.testing import FakeExecutor, check_host
from sam2_blocks.values import MaskPrediction
from tests.conftest import PICTURES, ROOT

PLUGIN = "sam2_blocks.hosts.roboflow"
HW = (240, 320)
SEGMENT = {
    "type": "sam2_blocks/segment@v1",
    "name": "segment",
    "image": "$inputs.image",
    "boxes": "$inputs.boxes",
    "model": "fake",
}
DRAW = [
    {
        "type": f"roboflow_core/{shape}_visualization@v1",
        "name": shape,
        "image": "$inputs.image",
        "predictions": "$steps.segment.predictions",
    }
    for shape in ("mask", "polygon")
]
THEIR_BLOCK = {
    "type": "roboflow_core/segment_anything@v1",
    "name": "segment",
    "images": "$inputs.image",
    "boxes": "$inputs.boxes",
    "version": "hiera_tiny",
    "threshold": 0.1,
    "multimask_output": False,
}

# The engine and what it imports warn of themselves; ours still fail the test.
pytestmark = pytest.mark.filterwarnings("ignore:::(?!sam2_blocks)")


class RingExecutor(FakeExecutor):
    """Answers every prompt with one mask: a ring, and a dot beside it."""

    def segment(self, items, **_):
        return [self._rings(embedding.image_hw, len(prompts)) for embedding, prompts in items]

    def _rings(self, image_hw, count):
        rles = (mask_to_rle(ring_mask(image_hw)),) * count
        return MaskPrediction(
            image_hw=image_hw,
            rles=rles,
            iou_prediction=np.full(count, 0.75, np.float32),
            low_res_logits=np.zeros((count, 8, 8), np.float32),
            mask_box_xyxy=rles_to_boxes_xyxy(rles),
        )


class LoggingExecutor(FakeExecutor):
    """Keeps the pictures it was given."""

    def embed(self, images):
        self.pictures = list(images)
        return super().embed(images)


def ring_mask(image_hw):
    mask = np.zeros(image_hw, bool)
    mask[40:120, 40:120] = True
    mask[60:100, 60:100] = False
    mask[150:170, 200:230] = True
    return mask


@pytest.fixture(scope="session")
def engine_class():
    """The engine, in a process where its torchvision can be imported."""
    os.environ["WORKFLOWS_PLUGINS"] = PLUGIN
    _define_torchvision_operators()
    from roboflow_workflows.execution_engine.core import ExecutionEngine

    yield ExecutionEngine
    del os.environ["WORKFLOWS_PLUGINS"]


def _define_torchvision_operators():
    """Let torchvision be imported beside a torch that its compiled half was not built for.

    The engine imports it to decode pictures, which these tests do not do.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        sys.modules.pop("torchvision", None)
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _define_torchvision_operators.library = library  # it undefines them when collected


def resources_of(factory):
    """Resources with one executor, and that executor."""
    made = factory() if isinstance(factory, type) else factory
    return Resources(dict.fromkeys(("sam2", "fake"), lambda *_, **__: made)), made


@pytest.fixture
def start(engine_class):
    """Compile a workflow: ``start(steps, outputs, inputs=…, resources=…)``."""

    def compile_workflow(steps, outputs, *, inputs=None, resources=None, **options):
        document = {
            "version": "1.0",
            "inputs": inputs or [IMAGE, BOXES],
            "steps": steps,
            "outputs": [
                {"type": "JsonField", "name": name, "selector": selector, **options}
                for name, selector in outputs.items()
            ],
        }
        given = {f"{PLUGIN}.resources": resources or resources_of(FakeExecutor)[0]}
        return engine_class.init(workflow_definition=document, init_parameters=given)

    return compile_workflow


IMAGE = {"type": "WorkflowImage", "name": "image"}
BOXES = {
    "type": "WorkflowBatchInput",
    "name": "boxes",
    "kind": ["object_detection_prediction"],
}
PREDICTIONS = {"predictions": "$steps.segment.predictions"}


def picture(seed=0):
    """A picture as the engine's users give it: BGR."""
    return np.random.default_rng(seed).integers(0, 256, (*HW, 3), np.uint8)


def detector_output(count):
    """What the engine's serialisers make of a detector's boxes."""
    rows = [
        {
            "x": 60 + 30 * index,
            "y": 60 + 20 * index,
            "width": 40,
            "height": 30,
            "confidence": 0.5 + 0.1 * index,
            "class": f"class-{index}",
            "class_id": index,
            "detection_id": f"box-{index}",
        }
        for index in range(count)
    ]
    return {"image": {"width": HW[1], "height": HW[0]}, "predictions": rows}


def run_one(engine, *, serialize=False, **inputs):
    [result] = engine.run(runtime_parameters=inputs, serialize_results=serialize)
    return result


# How the engine sees the blocks.


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
    assert set(described) == {
        "sam2_blocks/automatic@v1",
        "sam2_blocks/detections_filter@v1",
        "sam2_blocks/draw_masks@v1",
        "sam2_blocks/embed@v1",
        "sam2_blocks/masks_polygons@v1",
        "sam2_blocks/segment@v1",
    }


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


def test_a_missing_gpu_is_no_hard_restriction(described):
    [restriction] = described["sam2_blocks/segment@v1"].restrictions
    assert restriction["severity"] == "soft"
    assert described["sam2_blocks/draw_masks@v1"].restrictions == []


def test_bounds_and_units_reach_the_schema(described):
    schema = described["sam2_blocks/segment@v1"].block_schema["properties"]
    literal = schema["min_confidence"]["anyOf"][0]
    assert (literal["minimum"], literal["maximum"]) == (0, 1)
    assert "Unit: px" in schema["max_hole_area"]["description"]


def test_every_compilation_gets_the_same_classes(engine_class):
    from sam2_blocks.hosts import roboflow

    assert roboflow.load_blocks() is roboflow.load_blocks()


def test_importing_the_plugin_is_cheap_and_needs_no_torch():
    """Only small packages are loaded: no torch, no supervision, not the engine either."""
    code = (
        "import sys; sys.modules['torch'] = None; before = set(sys.modules); "
        "import sam2_blocks.hosts.roboflow; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in ran.stdout.split() if not name.startswith("_")}
    small = {"PIL", "annotated_types", "defusedxml", "numpy", "pluggy", "pydantic", "ruamel"}
    small |= {"pydantic_core", "sam2_blocks", "typing_extensions", "typing_inspection"}
    assert loaded - sys.stdlib_module_names <= small


def test_a_wrong_parameter_is_found_at_compilation(start):
    from roboflow_workflows.errors import WorkflowSyntaxError

    with pytest.raises(WorkflowSyntaxError) as caught:
        start([{**SEGMENT, "min_confidence": 2}], PREDICTIONS)
    assert "less than or equal to 1" in str(caught.value.inner_error)


def test_a_missing_prompt_is_found_at_compilation(start):
    from roboflow_workflows.errors import WorkflowSyntaxError

    with pytest.raises(WorkflowSyntaxError) as caught:
        start([{**SEGMENT, "boxes": None}], PREDICTIONS)
    assert "give exactly one of 'boxes', 'prompts'; got none" in str(caught.value.inner_error)


def test_an_older_engine_inside_inference_is_found(engine_class, monkeypatch):
    import roboflow_workflows

    from sam2_blocks.hosts.roboflow import engine

    monkeypatch.setattr(engine, "ENGINES", ("no_such_engine", "in_tree.workflows"))
    alias = "in_tree.workflows"
    names = [name for name in sys.modules if name.startswith("roboflow_workflows")]
    for name in names:
        monkeypatch.setitem(
            sys.modules, name.replace("roboflow_workflows", alias, 1), sys.modules[name]
        )
    monkeypatch.setitem(sys.modules, "in_tree", roboflow_workflows)
    engine.load_engine.cache_clear()
    assert "image_embedding" in engine.load_engine().kinds
    engine.load_engine.cache_clear()


def test_a_wrong_kind_is_found_at_compilation(start):
    from roboflow_workflows.errors import ReferenceTypeError

    with pytest.raises(ReferenceTypeError):
        start([{**SEGMENT, "boxes": "$inputs.image"}], PREDICTIONS)


# What the engine's own blocks and serialisers make of our predictions.


def test_a_batch_of_none_one_and_five_boxes(start):
    engine = start([SEGMENT, *DRAW], {**PREDICTIONS, "drawn": "$steps.mask.image"})
    counts = (0, 1, 5)
    results = engine.run(
        runtime_parameters={
            "image": [picture(count) for count in counts],
            "boxes": [detector_output(count) for count in counts],
        },
        serialize_results=True,
    )
    for count, result in zip(counts, results, strict=True):
        found = result["predictions"]
        assert found["image"] == {"width": HW[1], "height": HW[0]}
        assert [row["class"] for row in found["predictions"]] == [
            f"class-{index}" for index in range(count)
        ]
        json.dumps(found)


def test_their_visualisations_draw_our_masks(start):
    engine = start(
        [SEGMENT, *DRAW], {"mask": "$steps.mask.image", "polygon": "$steps.polygon.image"}
    )
    image = picture()
    result = run_one(engine, image=image, boxes=detector_output(1))
    changed = {name: (drawn.numpy_image != image).any(axis=2) for name, drawn in result.items()}
    assert changed["mask"][45:75, 40:80].mean() > 0.9  # the fake mask fills the box
    assert not changed["mask"][100:].any()
    assert changed["polygon"].any()


def test_class_id_confidence_and_extra_columns_survive(start):
    boxes = sv.Detections(
        np.array([[40.0, 45, 80, 75]]),
        confidence=np.array([0.5]),
        class_id=np.array([7]),
        tracker_id=np.array([3]),
        data={
            "class_name": np.array(["cat"]),
            "detection_id": np.array(["box-0"]),
            "colour": np.array(["red"]),
        },
    )
    found = run_one(start([SEGMENT], PREDICTIONS), image=picture(), boxes=boxes)["predictions"]
    assert (found.class_id[0], found.confidence[0], found.tracker_id[0]) == (7, 0.5, 3)
    assert (found.data["class_name"][0], found.data["colour"][0]) == ("cat", "red")
    assert found.data["parent_id"][0] == "box-0"
    assert found.data["detection_id"][0] != "box-0"


def test_detections_without_confidence_or_class_are_completed(start):
    boxes = sv.Detections(np.array([[40.0, 45, 80, 75]]))
    result = run_one(start([SEGMENT], PREDICTIONS), serialize=True, image=picture(), boxes=boxes)
    [row] = result["predictions"]["predictions"]
    assert (row["class"], row["class_id"], row["confidence"]) == ("object", 0, 0.75)


def test_holes_and_parts_survive_serialisation(start):
    resources, _ = resources_of(RingExecutor)
    result = run_one(
        start([SEGMENT], PREDICTIONS, resources=resources),
        serialize=True,
        image=picture(),
        boxes=detector_output(1),
    )
    from roboflow_workflows.core_steps.loader import KINDS_DESERIALIZERS, KINDS_SERIALIZERS

    kind = "rle_instance_segmentation_prediction"
    sent = json.loads(json.dumps(result["predictions"]))
    back = KINDS_DESERIALIZERS[kind]("boxes", sent)
    assert np.array_equal(coco.decode(back.data["rle_mask"][0]).astype(bool), ring_mask(HW))

    ours = run_one(
        start([SEGMENT], PREDICTIONS, resources=resources),
        image=picture(),
        boxes=detector_output(1),
    )["predictions"]
    lossy = KINDS_SERIALIZERS["instance_segmentation_prediction"](ours)
    polygon = KINDS_DESERIALIZERS["instance_segmentation_prediction"]("boxes", lossy).mask[0]
    assert (polygon & ring_mask(HW)).sum() / (polygon | ring_mask(HW)).sum() < 0.75


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


# Pictures, crops, embeddings, gaps.


def test_pictures_arrive_in_rgb(start):
    resources, executor = resources_of(LoggingExecutor)
    blue = np.zeros((*HW, 3), np.uint8)
    blue[..., 0] = 255  # BGR
    run_one(
        start([SEGMENT], PREDICTIONS, resources=resources), image=blue, boxes=detector_output(1)
    )
    assert executor.pictures[0].pixels[0, 0].tolist() == [0, 0, 255]


def test_a_grey_picture_is_accepted(start):
    resources, executor = resources_of(LoggingExecutor)
    grey = np.full(HW, 9, np.uint8)
    run_one(
        start([SEGMENT], PREDICTIONS, resources=resources), image=grey, boxes=detector_output(1)
    )
    assert executor.pictures[0].pixels.shape == (*HW, 3)


def test_our_pictures_leave_in_bgr_with_their_lineage(start):
    draw = {"type": "draw/masks@v1", "name": "draw", "image": "$inputs.image"}
    draw["predictions"] = "$steps.segment.predictions"
    image = picture()
    engine = start([SEGMENT, draw], {"drawn": "$steps.draw.image"})
    drawn = run_one(engine, image=image, boxes=detector_output(0))["drawn"]
    assert np.array_equal(drawn.numpy_image, image)
    assert drawn.parent_metadata.parent_id == "image"


def crop_workflow(start, **options):
    crop = {"type": "roboflow_core/dynamic_crop@v1", "name": "crop", "images": "$inputs.image"}
    crop["predictions"] = "$inputs.boxes"
    click = {**SEGMENT, "image": "$steps.crop.crops", "prompts": [{"point_coords": [[9, 7]]}]}
    del click["boxes"]
    again = {**SEGMENT, "name": "again", "image": "$steps.crop.crops"}
    again["boxes"] = "$steps.segment.predictions"
    return start([crop, click, again], {"predictions": "$steps.again.predictions"}, **options)


def test_crops_are_segmented_and_their_masks_return_to_the_picture(start):
    result = run_one(crop_workflow(start), image=picture(), boxes=detector_output(3))
    for index, found in enumerate(result["predictions"]):
        x0, y0 = 40 + 30 * index, 45 + 20 * index  # corner of the crop
        assert found.xyxy.tolist() == [[x0 + 7, y0 + 5, x0 + 11 - 1, y0 + 9 - 1]]
        assert found.mask.shape == (1, *HW)
        assert found.data["root_parent_id"].tolist() == ["image"]


def test_crops_know_where_they_come_from(start):
    engine = crop_workflow(start, coordinates_system="own")
    found = run_one(engine, image=picture(), boxes=detector_output(2))["predictions"][1]
    assert found.data["image_dimensions"].tolist() == [[30, 40]]
    assert found.data["parent_coordinates"].tolist() == [[70, 65]]
    assert found.data["root_parent_dimensions"].tolist() == [[*HW]]


def test_a_batch_of_nested_crops(start):
    results = crop_workflow(start).run(
        runtime_parameters={
            "image": [picture(), picture(1)],
            "boxes": [detector_output(0), detector_output(2)],
        }
    )
    assert [len(result["predictions"]) for result in results] == [0, 2]


def test_everything_in_a_picture_without_prompts(start):
    step = {
        "type": "sam2_blocks/automatic@v1",
        "name": "segment",
        "image": "$inputs.image",
        "points_per_side": 3,
        "model": "fake",
    }
    engine = start([step, DRAW[0]], {**PREDICTIONS, "drawn": "$steps.mask.image"}, inputs=[IMAGE])
    result = run_one(engine, image=picture())
    assert len(result["predictions"]) == 9
    assert result["predictions"].data["stability_score"].tolist() == [1] * 9
    assert (result["drawn"].numpy_image != picture()).any()
    rows = run_one(engine, serialize=True, image=picture())["predictions"]["predictions"]
    assert len(rows) == 9


def test_one_embedding_serves_two_steps(start):
    resources, executor = resources_of(FakeExecutor)
    embed = {"type": "sam2_blocks/embed@v1", "name": "embed", "image": "$inputs.image"}
    first = {**SEGMENT, "image": None, "embedding": "$steps.embed.embedding"}
    second = {**first, "name": "second", "boxes": "$steps.segment.predictions"}
    outputs = {**PREDICTIONS, "second": "$steps.second.predictions"}
    engine = start([embed, first, second], outputs, resources=resources)
    result = run_one(engine, image=picture(), boxes=detector_output(2))
    assert executor.embedded == ["image"]
    assert result["second"].data["root_parent_id"].tolist() == ["image", "image"]
    assert result["second"].data["image_dimensions"].tolist() == [[*HW], [*HW]]


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


# With a real model.


@pytest.fixture(scope="session")
def nano():
    """Resources that load ``nano`` once."""
    from sam2_blocks import load_plugins

    resources = load_plugins(points=[]).resources()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the embedded weights of 'nano' are missing")
        resources.executor("nano", device="cpu")
    return resources


def test_the_same_masks_as_our_own_runner(start, nano):
    engine = start([{**SEGMENT, "model": "nano", "device": "cpu"}], PREDICTIONS, resources=nano)

    def segment(image, boxes, params):
        return run_one(engine, image=bgr(image), boxes=boxes)["predictions"]

    picture_file = read_image(PICTURES / "coffee.jpg")
    check_host(
        segment, image=picture_file, params={"model": "nano", "device": "cpu"}, resources=nano
    )


def bgr(image: Image) -> np.ndarray:
    return np.ascontiguousarray(image.pixels[..., ::-1])


def test_eight_steps_at_once_run_the_encoder_once(start, nano):
    names = [f"step-{index}" for index in range(8)]
    steps = [{**SEGMENT, "name": name, "model": "nano", "device": "cpu"} for name in names]
    outputs = {name: f"$steps.{name}.predictions" for name in names}
    engine = start(steps, outputs, resources=nano)
    executor = nano.executor("nano", device="cpu")
    before = executor.cache_stats().misses
    result = run_one(engine, image=picture(8), boxes=detector_output(2))
    assert executor.cache_stats().misses == before + 1
    masks = [[rle["counts"] for rle in result[name].data["rle_mask"]] for name in names]
    assert masks == [masks[0]] * 8


def test_two_workflows_at_once(start, nano):
    step = {**SEGMENT, "model": "nano", "device": "cpu"}
    engines = [start([step], PREDICTIONS, resources=nano) for _ in range(2)]
    jobs = [(engines[index % 2], picture(index % 3)) for index in range(6)]

    def masks_of(job):
        found = run_one(job[0], image=job[1], boxes=detector_output(2))["predictions"]
        return [rle["counts"] for rle in found.data["rle_mask"]]

    alone = [masks_of(job) for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(masks_of, jobs)) == alone


def test_an_embedding_is_sent_from_one_workflow_to_another(start, nano):
    model = {"model": "nano", "device": "cpu"}
    embed = {"type": "sam2_blocks/embed@v1", "name": "embed", "image": "$inputs.image", **model}
    sender = start([embed], {"embedding": "$steps.embed.embedding"}, inputs=[IMAGE], resources=nano)
    sent = json.loads(json.dumps(run_one(sender, serialize=True, image=picture())["embedding"]))
    embedding = {"type": "WorkflowBatchInput", "name": "embedding", "kind": ["image_embedding"]}
    step = {**SEGMENT, "image": None, "embedding": "$inputs.embedding"}
    receiver = start([step], PREDICTIONS, inputs=[embedding, BOXES], resources=nano)
    here = start([{**SEGMENT, **model}], PREDICTIONS, resources=nano)
    found = run_one(receiver, embedding=[sent], boxes=[detector_output(2)])["predictions"]
    wanted = run_one(here, image=picture(), boxes=detector_output(2))["predictions"]
    assert found.data["rle_mask"].tolist() == wanted.data["rle_mask"].tolist()
    assert found.data["root_parent_id"].tolist() == ["image", "image"]


def test_the_example_runs(engine_class, nano, tmp_path, monkeypatch, capsys):
    from sam2_blocks.hosts import roboflow

    monkeypatch.setitem(roboflow.REGISTERED_INITIALIZERS, "resources", lambda: nano)
    example = runpy.run_path(str(ROOT / "examples" / "roboflow_workflow.py"))
    example["main"](tmp_path)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "saucer",
        "cup",
        "coffee",
        "spoon",
    ]
    assert (tmp_path / "overlay.jpg").stat().st_size > 10_000


# Bad states: the workflow compiles, and running it says what is wrong.


def no_torch(model, **_):
    raise ModuleNotFoundError("No module named 'torch'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "hiera_tny"}, "there is no model 'hiera_tny'. Did you mean"),
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
    engine = start([SEGMENT], PREDICTIONS)
    with pytest.raises(
        StepExecutionError, match=r"item 1 of 2: prompt 0: box .* lies wholly outside"
    ):
        engine.run(
            runtime_parameters={
                "image": [picture()] * 2,
                "boxes": [detector_output(1), outside],
            }
        )

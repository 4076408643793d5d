"""Workflows of several steps, ours among the engine's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from sam2_blocks import Resources
from sam2_blocks.testing import FakeDetector, FakeExecutor
from tests.conftest import ROOT
from tests.hosts.roboflow.conftest import (
    BOXES,
    HW,
    IGNORED,
    IMAGE,
    PLUGIN,
    PREDICTIONS,
    SEGMENT,
    detector_output,
    picture,
    run_one,
)
from tests.hosts.roboflow.test_core_blocks import DRAWN
from tests.hosts.roboflow.theirs import frame, same_of_theirs

pytestmark = pytest.mark.filterwarnings(IGNORED)

AGAIN = {**SEGMENT, "name": "again"}
AUTOMATIC = {
    "type": "sam2_blocks/automatic@v1",
    "name": "automatic",
    "image": "$inputs.image",
    "points_per_side": 2,
    "model": "nano",
}
MASKS = {
    "type": "WorkflowBatchInput",
    "name": "masks",
    "kind": ["instance_segmentation_prediction"],
}
OUR_BLOCKS = {
    "segment@v1": {"image": "$inputs.image", "boxes": "PREDICTIONS", "model": "nano"},
    "masks_polygons@v1": {"predictions": "PREDICTIONS"},
    "draw_masks@v1": {"image": "$inputs.image", "predictions": "PREDICTIONS"},
    "detections_filter@v1": {"detections": "PREDICTIONS", "min_confidence": 0.55},
}


def core(block, name, **fields):
    return {"type": f"roboflow_core/{block}", "name": name, **fields}


def our(block, predictions):
    fields = OUR_BLOCKS[block]
    wired = {name: predictions if v == "PREDICTIONS" else v for name, v in fields.items()}
    return {"type": f"sam2_blocks/{block}", "name": "ours", **wired}


@pytest.fixture
def run(start):
    """Run steps on one picture and boxes: ``run(steps, outputs, serialize=…)``."""

    def run_steps(steps, outputs, *, count=3, inputs=(), serialize=False, options=None, **given):
        engine = start(steps, outputs, inputs=[IMAGE, BOXES, *inputs], **(options or {}))
        given |= {"image": frame(picture()), "boxes": detector_output(count)}
        return run_one(engine, serialize=serialize, **given)

    return run_steps


def test_crops_of_masks_are_segmented_again_and_rolled_up(run):
    crop = core("dynamic_crop@v1", "crop", images="$inputs.image")
    crop |= {"predictions": "$steps.segment.predictions", "mask_opacity": 1.0}
    parts = {**AUTOMATIC, "image": "$steps.crop.crops"}
    flat = core("dimension_collapse@v1", "flat", data="$steps.automatic.predictions")
    rolled = core("detections_list_rollup@v1", "rolled", child_detections="$steps.flat.output")
    rolled["parent_detection"] = "$steps.segment.predictions"
    outputs = {"rolled": "$steps.rolled.rolled_up_detections"}
    own = {"coordinates_system": "own"}  # what is rolled up says it still lies in its crop
    found = run([SEGMENT, crop, parts, flat, rolled], outputs, options=own)["rolled"]
    assert found.mask.shape[1:] == HW
    inside = run([SEGMENT], PREDICTIONS)["predictions"].mask.any(axis=0)
    assert not (found.mask.any(axis=0) & ~inside).any()
    steps = [SEGMENT, crop, parts, flat, rolled]
    rows = run(steps, outputs, options=own, serialize=True)["rolled"]["predictions"]
    assert [len(row["points"]) > 3 for row in rows] == [True] * len(found)


def test_slices_are_segmented_and_stitched(run):
    slicer = core("image_slicer@v1", "slices", image="$inputs.image")
    slicer |= {"slice_width": 160, "slice_height": 120, "overlap_ratio_width": 0.0}
    slicer |= {"overlap_ratio_height": 0.0}
    parts = {**AUTOMATIC, "image": "$steps.slices.slices", "points_per_side": 1}
    stitch = core("detections_stitch@v1", "stitch", reference_image="$inputs.image")
    stitch["predictions"] = "$steps.automatic.predictions"
    outputs = {"predictions": "$steps.stitch.predictions"}
    found = run([slicer, parts, stitch], outputs)["predictions"]
    assert found.mask.shape == (4, *HW)
    boxes = sorted(found.xyxy.tolist())
    assert boxes[0][:2] == [78, 58]  # the middle of the first slice
    assert boxes[-1][:2] == [238, 178]
    rows = run([slicer, parts, stitch], outputs, serialize=True)["predictions"]["predictions"]
    for row, mask in zip(rows, found.mask, strict=True):
        ys, xs = np.nonzero(mask)
        corners = {(p["x"], p["y"]) for p in row["points"]}
        assert corners == {(x, y) for x in (xs.min(), xs.max()) for y in (ys.min(), ys.max())}


def test_two_of_our_steps_agree(run):
    vote = core("detections_consensus@v1", "vote", required_votes=2)
    vote["predictions_batches"] = ["$steps.segment.predictions", "$steps.again.predictions"]
    found = run([SEGMENT, AGAIN, vote], {"predictions": "$steps.vote.predictions"})["predictions"]
    assert found.mask.shape == (3, *HW)
    assert set(found.data["parent_id"]) == {"image"}


def test_predictions_with_and_without_prompts_combine(run):
    both = core("detections_combine@v1", "both", prediction_one="$steps.segment.predictions")
    both["prediction_two"] = "$steps.automatic.predictions"
    found = run([SEGMENT, AUTOMATIC, both], {"predictions": "$steps.both.predictions"})
    assert len(found["predictions"]) == 3 + 4


def test_ours_and_theirs_combine(run):
    ours = run([SEGMENT], PREDICTIONS)["predictions"]
    theirs = same_of_theirs(ours, frame(picture()), ours)
    both = core("detections_combine@v1", "both", prediction_one="$steps.segment.predictions")
    both["prediction_two"] = "$inputs.masks"
    outputs = {"predictions": "$steps.both.predictions"}
    found = run([SEGMENT, both], outputs, inputs=[MASKS], masks=theirs)["predictions"]
    assert found.mask.shape == (6, *HW)


def test_extra_columns_combine_where_both_ask_for_them(run):
    click = {**SEGMENT, "boxes": None, "prompts": [{"point_coords": [[50, 60]]}]}
    steps = [{**step, "extra_columns": True} for step in (click, AUTOMATIC)]
    both = core("detections_combine@v1", "both", prediction_one="$steps.segment.predictions")
    both["prediction_two"] = "$steps.automatic.predictions"
    found = run([*steps, both], {"predictions": "$steps.both.predictions"})["predictions"]
    wanted = ["prompt_index", "iou_prediction", "stability_score", "prompt_detection_id"]
    assert set(wanted) <= found.data.keys()


def test_classes_of_crops_return_to_the_masks(run):
    """Each crop knows which mask it was cut for."""
    crop = core("dynamic_crop@v1", "crop", images="$inputs.image")
    crop["predictions"] = "$steps.segment.predictions"
    named = core("detections_classes_replacement@v1", "named")
    named["object_detection_predictions"] = "$steps.segment.predictions"
    named["classification_predictions"] = "$steps.look.predictions"
    look = {"type": "Look", "name": "look", "crop": "$steps.crop.crops"}
    found = run(
        [SEGMENT, crop, look, named],
        {"predictions": "$steps.named.predictions"},
        options={"blocks": [LOOK]},
    )["predictions"]
    assert found.data["class_name"].tolist() == ["39x29"] * 3
    assert found.mask.shape == (3, *HW)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize(
    "block",
    [name for name in DRAWN.split() if name not in ("heatmap", "icon", "trace")],
)
def test_their_pictures_are_drawn(run, block, compact):
    draw = core(f"{block}_visualization@v1", "draw", image="$inputs.image")
    draw["predictions"] = "$steps.segment.predictions"
    segment = {**SEGMENT, "compact_masks": compact}
    drawn = run([segment, draw], {"image": "$steps.draw.image"})["image"].numpy_image
    assert (drawn != picture()).any()


@pytest.mark.parametrize(
    "tracker",
    [
        "byte_tracker@v2",
        "byte_tracker@v3",
        "trackers_bytetrack@v1",
        "trackers_botsort@v1",
        "trackers_sort@v1",
        "trackers_ocsort@v1",
    ],
)
def test_masks_are_tracked_and_timed_in_a_zone(run, tracker):
    track = core(tracker, "track", image="$inputs.image", detections="$steps.segment.predictions")
    zone = core("time_in_zone@v2", "zone", image="$inputs.image")
    zone |= {"detections": "$steps.track.tracked_detections", "zone": ZONE}
    outputs = {
        "timed": "$steps.zone.timed_detections",
        "tracked": "$steps.track.tracked_detections",
    }
    found = run([SEGMENT, track, zone], outputs)
    tracked = found["tracked"]
    assert not len(tracked) or tracked.mask.shape[1:] == HW  # some want a second frame
    assert len(found["timed"]) == len(tracked)
    json.dumps(run([SEGMENT, track, zone], outputs, serialize=True))


ZONE = [[0, 0], [0, 239], [319, 239], [319, 0]]


def test_properties_and_tables_are_read(run):
    names = {"type": "DetectionsPropertyExtract", "property_name": "class_name"}
    read = core("property_definition@v1", "read", data="$steps.segment.predictions")
    read["operations"] = [names]
    table = core("csv_formatter@v1", "table")
    table["columns_data"] = {"classes": "$steps.segment.predictions"}
    table["columns_operations"] = {"classes": [names]}
    outputs = {"names": "$steps.read.output", "table": "$steps.table.csv_content"}
    made = run([SEGMENT, read, table], outputs)
    assert made["names"] == ["class-0", "class-1", "class-2"]
    assert "class-2" in made["table"]


@pytest.mark.parametrize("block", OUR_BLOCKS)
@pytest.mark.parametrize("between", ["nothing", "their filter", "bounding_rect", "combine"])
def test_our_blocks_follow_ours_and_theirs(run, block, between):
    step, output = {
        "nothing": ([], "$steps.segment.predictions"),
        "their filter": ([FILTER], "$steps.filter.predictions"),
        "bounding_rect": (
            [core("bounding_rect@v1", "rect", predictions="$steps.segment.predictions")],
            "$steps.rect.detections_with_rect",
        ),
        "combine": (
            [
                AUTOMATIC,
                core(
                    "detections_combine@v1",
                    "both",
                    prediction_one="$steps.segment.predictions",
                    prediction_two="$steps.automatic.predictions",
                ),
            ],
            "$steps.both.predictions",
        ),
    }[between]
    steps = [SEGMENT, *step, our(block, output)]
    made = run(steps, {"all": "$steps.ours.*"}, serialize=True)
    assert json.dumps(made["all"], default=str)  # times of frames are datetime in the engine


FILTER = core(
    "detections_filter@v1",
    "filter",
    predictions="$steps.segment.predictions",
    operations=[
        {
            "type": "DetectionsFilter",
            "filter_operation": {
                "type": "StatementGroup",
                "statements": [
                    {
                        "type": "BinaryStatement",
                        "left_operand": {
                            "type": "DynamicOperand",
                            "operations": [
                                {"type": "ExtractDetectionProperty", "property_name": "confidence"}
                            ],
                        },
                        "comparator": {"type": "(Number) >"},
                        "right_operand": {"type": "StaticOperand", "value": 0.55},
                    }
                ],
            },
        }
    ],
)


@pytest.mark.parametrize("block", OUR_BLOCKS)
def test_run_lengths_alone_go_into_all_our_blocks(run, block):
    """As their SAM 3 block makes them: no mask, and COCO run lengths in a column."""
    found = run([SEGMENT], PREDICTIONS)["predictions"]
    wanted = run([our(block, "$inputs.masks")], ALL, inputs=[MASKS], masks=found, serialize=True)
    rles = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in found.mask]
    found.data["rle_mask"] = np.array(rles, object)
    found.mask = None
    given = {"inputs": [{**MASKS, "kind": ["rle_instance_segmentation_prediction"]}]}
    made = run([our(block, "$inputs.masks")], ALL, **given, masks=found, serialize=True)
    assert without_ids(made) == without_ids(wanted)


ALL = {"all": "$steps.ours.*"}


def without_ids(value):
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k != "detection_id"}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


def python_block(code, *, name="Look", field="crop", kind="classification_prediction"):
    return {
        "type": "DynamicBlockDefinition",
        "manifest": {
            "type": "ManifestDescription",
            "block_type": name,
            "inputs": {
                field: {
                    "type": "DynamicInputDefinition",
                    "selector_types": ["step_output", "step_output_image"],
                }
            },
            "outputs": {"predictions": {"type": "DynamicOutputDefinition", "kind": [kind]}},
        },
        "code": {
            "type": "PythonCode",
            "run_function_code": f"def run(self, {field}):\n{code}",
        },
    }


LOOK = python_block(
    "    height, width = crop.numpy_image.shape[:2]\n"
    "    name = f'{width}x{height}'\n"
    "    top = {'class': name, 'class_id': 5, 'confidence': 0.9}\n"
    "    return {'predictions': {'predictions': [top], 'top': name, 'confidence': 0.9,\n"
    "        'parent_id': crop.parent_metadata.parent_id, 'inference_id': 'one'}}\n"
)

PYTHON = {
    "masks.astype(int).sum().item()": 3 * 1200,
    "bool(masks.any())": True,
    "masks.ndim": 3,
    "masks[:, 10:60, 30:90].shape[1:]": (50, 60),
    "int((masks[0] | masks[1]).sum())": 2400 - 10 * 10,
    "np.sum(masks, axis=(1, 2)).tolist()": [1200] * 3,
    "[int(m.sum()) for m in masks]": [1200] * 3,
    "np.where(masks[2])[0].min().item()": 85,
    "masks.dtype.name": "bool",
}


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("expression", PYTHON)
def test_custom_python_uses_masks_as_arrays(run, expression, compact):
    code = f"    masks = found.mask\n    return {{'predictions': {expression}}}\n"
    block = python_block(code, name="Count", field="found", kind="*")
    count = {"type": "Count", "name": "count", "found": "$steps.segment.predictions"}
    steps = [{**SEGMENT, "compact_masks": compact}, count]
    made = run(steps, {"made": "$steps.count.predictions"}, options={"blocks": [block]})["made"]
    assert made == PYTHON[expression]


def test_json_has_what_that_of_their_block_has(run, engine_class):
    from roboflow_workflows.core_steps.common.serializers import serialise_sv_detections

    ours = run([SEGMENT], PREDICTIONS)["predictions"]
    theirs = serialise_sv_detections(same_of_theirs(ours, frame(picture()), ours))
    written = run([SEGMENT], PREDICTIONS, serialize=True)["predictions"]
    for row, wanted in zip(written["predictions"], theirs["predictions"], strict=True):
        assert row.keys() == wanted.keys() | {"rle_mask"}
        assert row["points"] == wanted["points"]
        assert row["parent_id"] == "image"


@pytest.mark.parametrize(
    "change",
    [
        core("bounding_rect@v1", "changed", predictions="$steps.segment.predictions"),
        core("dynamic_zone@v1", "changed", predictions="$steps.segment.predictions")
        | {"required_number_of_vertices": 4},
        core("mask_edge_snap@v1", "changed", segmentation="$steps.segment.predictions")
        | {"image": "$inputs.image"},
        core("perspective_correction@v1", "changed", predictions="$steps.segment.predictions")
        | {"images": "$inputs.image", "perspective_polygons": [[*ZONE[:3], [319, 20]]]},
        core("detection_offset@v1", "changed", predictions="$steps.segment.predictions")
        | {"offset_width": 8, "offset_height": 4},
    ],
    ids=lambda step: step["type"].partition("/")[2],
)
def test_what_is_written_is_the_mask_as_it_is_now(run, change):
    from roboflow_workflows.core_steps.common.serializers import mask_to_polygon

    from sam2_blocks.hosts.roboflow.values import serialize_rle_masks

    made = run([SEGMENT, change], {"all": "$steps.changed.*"})["all"]
    found = next(value for value in made.values() if hasattr(value, "xyxy"))
    rows = serialize_rle_masks(found)["predictions"]
    for row, mask in zip(rows, np.asarray(found.mask), strict=True):
        assert np.array_equal(coco.decode(row["rle_mask"]).astype(bool), mask)
        if "polygon" not in found.data:
            outline = [[point["x"], point["y"]] for point in row["points"]]
            assert outline == mask_to_polygon(mask=mask).tolist()


def test_phrases_become_boxes_and_boxes_masks(engine_class):
    """``examples/roboflow_text.json``, with fakes of both models."""
    workflow = json.loads((ROOT / "examples" / "roboflow_text.json").read_text())
    resources = Resources({"sam2": FakeExecutor, "transformers": FakeDetector})
    engine = engine_class.init(
        workflow_definition=workflow, init_parameters={f"{PLUGIN}.resources": resources}
    )
    given = {"image": frame(picture()), "phrases": ["red car", "dog"]}
    found = run_one(engine, **given)
    assert list(found["boxes"].data["class_name"]) == ["red car", "dog"]
    masks = found["predictions"]
    assert list(masks.data["class_name"]) == ["red car", "dog"]
    np.testing.assert_array_equal(masks.confidence, found["boxes"].confidence)
    for mask, (x0, y0, x1, y1) in zip(masks.mask, found["boxes"].xyxy.astype(int), strict=True):
        assert mask[y0:y1, x0:x1].all()
    written = run_one(engine, serialize=True, **given)["predictions"]
    assert [row["class"] for row in written["predictions"]] == ["red car", "dog"]

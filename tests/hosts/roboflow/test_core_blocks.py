"""Every block of the engine that takes masks, fed with ours and with the same of its own block."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.masks.stack import MaskStack
from tests.hosts.roboflow.conftest import (
    BOXES,
    HW,
    IGNORED,
    IMAGE,
    PLUGIN,
    PREDICTIONS,
    SEGMENT,
    detector_output,
    run_one,
)
from tests.hosts.roboflow.theirs import frame, same, same_of_theirs

pytestmark = pytest.mark.filterwarnings(IGNORED)

ZONE = [[20, 20], [20, 200], [250, 200], [250, 20]]
LINE = [[0, 100], [300, 100]]
BY_CLASS = {
    "type": "DetectionsFilter",
    "filter_operation": {
        "type": "StatementGroup",
        "statements": [
            {
                "type": "BinaryStatement",
                "left_operand": {
                    "type": "DynamicOperand",
                    "operations": [
                        {"type": "ExtractDetectionProperty", "property_name": "class_name"}
                    ],
                },
                "comparator": {"type": "in (Sequence)"},
                "right_operand": {"type": "StaticOperand", "value": ["class-0", "class-2"]},
            }
        ],
    },
}
DRAWN = (
    "background_color blur bounding_box circle color corner crop dot ellipse halo heatmap icon "
    "label mask pixelate polygon rich_label trace triangle"
)
"""Visualisations that take one set of predictions, at their first version."""
DRAWN_V2 = ("halo_visualization@v2", "label_visualization@v2", "polygon_visualization@v2")
SETTINGS = {
    "dynamic_crop@v1": [{}, {"mask_opacity": 1.0, "background_color": "#102030"}],
    "detections_filter@v1": [{"operations": [BY_CLASS]}],
    "detections_transformation@v1": [
        {"operations": [BY_CLASS]},
        {"operations": [{"type": "DetectionsOffset", "offset_x": 10, "offset_y": 6}]},
        {"operations": [{"type": "DetectionsShift", "shift_x": 7, "shift_y": -5}]},
    ],
    "detection_offset@v1": [{"offset_width": 10, "offset_height": 10}],
    "per_class_confidence_filter@v1": [{"class_thresholds": {"class-0": 0.9, "class-1": 0.1}}],
    "byte_tracker@v1": [{"metadata": "$inputs.video"}],
    "byte_tracker@v2": [{}],
    "byte_tracker@v3": [{}],
    "trackers_bytetrack@v1": [{}],
    "trackers_botsort@v1": [{}],
    "trackers_sort@v1": [{}],
    "trackers_ocsort@v1": [{}],
    "perspective_correction@v1": [
        {
            "perspective_polygons": [ZONE],
            "warp_image": warp,
            "extend_perspective_polygon_by_detections_anchor": anchor,
        }
        for warp, anchor in ((False, ""), (True, ""))
    ],
    "dynamic_zone@v1": [{"required_number_of_vertices": n} for n in (4, 6)],
    "size_measurement@v1": [{"reference_dimensions": [4.5, 3.0]}],
    "frame_delay@v1": [{"offset": 0}],
    "bounding_rect@v1": [{}],
    "detections_merge@v1": [{}, {"class_name": "all"}],
    "camera_focus@v2": [{}],
    "detections_consensus@v1": [
        {"required_votes": votes, "mask_aggregation_mode": mode}
        for votes, mode in ((1, "union"), (2, "union"), (2, "intersection"), (2, "largest"))
    ],
    "overlap_analysis@v1": [{}],
    "distance_measurement@v1": [
        {
            "object_1_class_name": "class-0",
            "object_2_class_name": "class-1",
            "reference_axis": "vertical",
            "calibration_method": "pixel to centimeter",
            "pixel_ratio": 10,
        }
    ],
    "detections_nearest_neighbor@v1": [{}],
    "line_counter@v1": [{"metadata": "$inputs.video", "line_segment": LINE}],
    "line_counter@v2": [{"line_segment": LINE}],
    "stabilize_detections@v1": [{}],
    "geotag_detection@v1": [{"latitude": 47.4, "longitude": -105.2, "altitude": 69.0}],
    "time_in_zone@v1": [{"metadata": "$inputs.video", "zone": ZONE}],
    "time_in_zone@v2": [{"zone": ZONE}],
    "time_in_zone@v3": [{"zone": ZONE}],
    "track_class_lock@v1": [{}],
    "detection_event_log@v1": [{}],
    "velocity@v1": [{}],
    "overlap@v1": [
        {"overlap_class_name": "class-1", "overlap_type": t}
        for t in ("Center Overlap", "Any Overlap")
    ],
    "detections_combine@v1": [{}],
    "mask_area_measurement@v1": [{}, {"pixels_per_unit": 2.0}],
    "mask_edge_snap@v1": [{}],
    "model_comparison_visualization@v1": [{}],
    **{f"{name}_visualization@v1": [{}] for name in DRAWN.split()},
    **{name: [{}] for name in DRAWN_V2},
}
"""Blocks and settings to try, beside those that the schema of a block says by itself."""

ELSEWHERE = {
    "detections_stitch@v1": "test_workflows.py, behind a slicer",
    "detections_classes_replacement@v1": "test_workflows.py, behind crops",
    "detections_list_rollup@v1": "test_workflows.py, behind crops",
}
OUTSIDE = {
    "florence_2@v1",
    "florence_2@v2",
    "model_monitoring_inference_aggregator@v1",
    "onvif_sink@v1",
    "roboflow_custom_metadata@v1",
    "roboflow_dataset_upload@v1",
    "roboflow_dataset_upload@v2",
    "roboflow_vision_events@v1",
    "sam3_interactive@v1",
    "sam3_video@v1",
    "segment_anything@v1",
    "segment_anything_2_video@v1",
    "stability_ai_inpainting@v1",
    "vision_event_bundle@v1",
}
"""Blocks that want a model, a platform or a camera."""

BROKEN = {"path_deviation_analytics@v1", "path_deviation_analytics@v2"}
"""Blocks that fail on every prediction: they hand the name of an anchor to who wants the anchor."""

ANY = "$inputs.predictions"
COUNT = {"found": [{"type": "SequenceLength"}]}
NAMES = {"type": "DetectionsPropertyExtract", "property_name": "class_name"}
ANYTHING = {
    "buffer@v1": {"data": ANY, "length": 2},
    "data_aggregator@v1": {
        "data": {"found": ANY},
        "data_operations": COUNT,
        "aggregation_mode": {"found": ["sum", "max"]},
        "interval_unit": "runs",
        "interval": 2,
    },
    "expression@v1": {
        "data": {"found": ANY},
        "switch": {
            "type": "CasesDefinition",
            "cases": [],
            "default": {"type": "DynamicCaseResult", "parameter_name": "found"},
        },
    },
    "first_non_empty_or_default@v1": {"data": [ANY]},
    "property_definition@v1": {"data": ANY, "operations": [NAMES]},
    "string_template@v1": {
        "template": "{{ $parameters.found }}",
        "data": {"found": ANY},
        "data_operations": COUNT,
    },
}
"""Blocks that take outputs of any kind, and settings to try; those with conditions and no output,
and those that send something away, are in `PASSING`; tables say when they were made, and collapsed
dimensions want crops: both are in ``test_workflows.py``."""

PASSING = {
    *("csv_formatter@v1", "dimension_collapse@v1"),
    *("asset_library_attributes@v1", "cache_set@v1", "continue_if@v1", "delta_filter@v1"),
    *("email_notification@v1", "email_notification@v2"),
    *("inner_workflow@v1", "openai_compatible@v1", "rate_limiter@v1", "slack_notification@v1"),
    *("switch_case@v1", "text_display@v1", "twilio_sms_notification@v1"),
    *("twilio_sms_notification@v2", "webhook_sink@v1"),
}
DRAWN_ANEW = ("detection_id", "parent_id")
TRACKED = {
    "line_counter@v1",
    "line_counter@v2",
    "stabilize_detections@v1",
    "time_in_zone@v1",
    "time_in_zone@v2",
    "time_in_zone@v3",
    "trace_visualization@v1",
    "track_class_lock@v1",
    "velocity@v1",
}
"""Blocks that want ``tracker_id``."""
SECOND = {"prediction_two", "predictions_b", "candidate_predictions", "target_predictions"}
"""Sockets of those blocks that compare two sets of predictions."""

THROUGH_A_STEP = {"velocity@v1"}
"""Blocks that take the outputs of steps alone."""
CASES = [(block, setting) for block, settings in SETTINGS.items() for setting in settings]


@pytest.fixture(scope="session")
def described(engine_class):
    """Of each block of the engine, the JSON Schema."""
    from roboflow_workflows.execution_engine.introspection.blocks_loader import (
        describe_available_blocks,
    )

    blocks = describe_available_blocks(dynamic_blocks=[], execution_engine_version="1.17.0").blocks
    return {
        block.manifest_type_identifier.partition("/")[2]: block.block_schema
        for block in blocks
        if block.block_source != PLUGIN
    }


@pytest.fixture(scope="session")
def schemas(described):
    """Those of the blocks that take masks."""
    return {name: schema for name, schema in described.items() if mask_sockets(schema)}


def mask_sockets(schema):
    """Names of the fields that predictions with masks may be wired to."""
    sockets = schema["properties"].items()
    return [name for name, field in sockets if '"instance_segmentation_pred' in json.dumps(field)]


def takes_anything(schema):
    return '"*"' in json.dumps(schema["properties"])


def step_of(block, setting, schema):
    """A step of a block, with a picture and predictions in every socket for them."""
    step = {"type": f"roboflow_core/{block}", "name": "block", **setting}
    fields = schema["properties"]
    for name in set(mask_sockets(schema)) - {"mask_opacity", "background_color"}:  # of any kind
        both = ["$inputs.predictions", "$inputs.others"]
        step[name] = both if fields[name].get("type") == "array" else both[name in SECOND]
    return step | {name: "$inputs.image" for name in ("image", "images", "icon") if name in fields}


ALL_PASS = {
    "type": "roboflow_core/per_class_confidence_filter@v1",
    "name": "all",
    "class_thresholds": {"class-0": 0.0},
    "default_threshold": 0.0,
}
INPUTS = [
    IMAGE,
    {"type": "WorkflowVideoMetadata", "name": "video"},
    *(
        {
            "type": "WorkflowBatchInput",
            "name": name,
            "kind": ["instance_segmentation_prediction"],
        }
        for name in ("predictions", "others")
    ),
]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(7).integers(0, 256, (*HW, 3), np.uint8)


def segmented(start, picture, **changes):
    """Predictions of our step on three boxes, and what prompted them."""
    from roboflow_workflows.core_steps.loader import KINDS_DESERIALIZERS

    boxes = KINDS_DESERIALIZERS["object_detection_prediction"]("boxes", detector_output(3))
    engine = start([{**SEGMENT, **changes}], PREDICTIONS, inputs=[IMAGE, BOXES])
    return run_one(engine, image=picture, boxes=boxes)["predictions"], boxes


def test_our_predictions_are_like_those_of_their_block(start, noise):
    ours, boxes = segmented(start, frame(noise))
    theirs = same_of_theirs(ours, frame(noise), boxes)
    assert ours.data.keys() == theirs.data.keys()
    assert same(ours, theirs)
    assert dtypes_of(ours) == dtypes_of(theirs)


def dtypes_of(found):
    columns = {name: column.dtype.kind for name, column in found.data.items()}
    fields = ("xyxy", "mask", "confidence", "class_id")
    return {**columns, **{name: np.asarray(getattr(found, name)).dtype for name in fields}}


def test_every_block_that_takes_masks_is_tried(schemas):
    tried = {block for block, settings in SETTINGS.items() if settings}
    assert set(schemas) == tried | ELSEWHERE.keys() | OUTSIDE | BROKEN


def test_every_block_that_takes_anything_is_known(described, schemas):
    found = {name for name, schema in described.items() if takes_anything(schema)}
    assert found - set(schemas) == ANYTHING.keys() | PASSING


@pytest.mark.parametrize("block", ANYTHING)
def test_a_block_for_any_kind_makes_the_same_of_ours_and_of_theirs(start, noise, block):
    ours, boxes = segmented(start, frame(noise))
    theirs = same_of_theirs(ours, frame(noise), boxes)
    step = {"type": f"roboflow_core/{block}", "name": "block", **ANYTHING[block]}
    made = [outputs_of(start, step, noise, found) for found in (theirs, ours)]
    assert same(made[0], made[1], ids=DRAWN_ANEW)


@pytest.mark.parametrize(("block", "setting"), CASES, ids=[block for block, _ in CASES])
def test_a_block_makes_the_same_of_ours_and_of_theirs(start, schemas, noise, block, setting):
    ours, boxes = segmented(start, frame(noise))
    theirs = same_of_theirs(ours, frame(noise), boxes)
    if block in TRACKED:
        ours.tracker_id = theirs.tracker_id = np.array([7, 8, 9])
    compact = replace(ours, mask=MaskStack.of(ours.mask))
    step = step_of(block, setting, schemas[block])
    made = [outputs_of(start, step, noise, found) for found in (theirs, ours, compact)]
    counted = ("tracker_id",) if block.startswith("trackers_") else ()  # by one counter for all
    assert same(made[0], made[1], ids=DRAWN_ANEW + counted)
    assert same(made[0], made[2], ids=DRAWN_ANEW + counted)


@pytest.mark.parametrize("block", sorted(BROKEN))
def test_a_broken_block_fails_on_theirs_too(start, schemas, noise, block):
    from roboflow_workflows.errors import StepExecutionError

    ours, boxes = segmented(start, frame(noise))
    theirs = same_of_theirs(ours, frame(noise), boxes)
    theirs.tracker_id = np.array([7, 8, 9])
    setting = {"reference_path": LINE}
    if block.endswith("@v1"):
        setting["metadata"] = "$inputs.video"
    with pytest.raises(StepExecutionError, match="is not supported"):
        outputs_of(start, step_of(block, setting, schemas[block]), noise, theirs)


def outputs_of(start, step, pixels, found):
    """All outputs of a step for two frames; it starts with empty state."""
    steps = [step]
    if step["type"].partition("/")[2] in THROUGH_A_STEP:
        steps.insert(0, {**ALL_PASS, "predictions": "$inputs.predictions"})
        steps[1] = {**step, "detections": "$steps.all.predictions"}
    engine = start(steps, {"all": "$steps.block.*"}, inputs=INPUTS)
    made = []
    for number in (1, 2):
        picture = frame(pixels.copy(), number=number)
        others = found[np.array([1, 2])]
        others.data["detection_id"] = np.array(["other-1", "other-2"])
        given = {"predictions": found[:], "others": others, "video": picture.video_metadata}
        made.append(run_one(engine, image=picture, **given)["all"])
    return made

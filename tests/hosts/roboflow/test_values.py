from __future__ import annotations

import json

import numpy as np
import pytest
import supervision as sv
from pycocotools import mask as coco

from tests.hosts.roboflow.conftest import (
    DRAW,
    HW,
    IGNORED,
    PREDICTIONS,
    SEGMENT,
    LoggingExecutor,
    RingExecutor,
    detector_output,
    picture,
    resources_of,
    ring_mask,
    run_one,
)
from tests.hosts.roboflow.theirs import frame

pytestmark = pytest.mark.filterwarnings(IGNORED)


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
    step = {**SEGMENT, "extra_columns": True}
    found = run_one(start([step], PREDICTIONS), image=picture(), boxes=boxes)["predictions"]
    assert (found.class_id[0], found.confidence[0], found.tracker_id[0]) == (7, 0.5, 3)
    assert (found.data["class_name"][0], found.data["colour"][0]) == ("cat", "red")
    assert (found.data["parent_id"][0], found.data["prompt_detection_id"][0]) == ("image", "box-0")
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


def test_pictures_arrive_in_rgb(start):
    resources, executor = resources_of(LoggingExecutor)
    blue = np.zeros((*HW, 3), np.uint8)
    blue[..., 0] = 255  # BGR
    run_one(
        start([SEGMENT], PREDICTIONS, resources=resources), image=blue, boxes=detector_output(1)
    )
    assert executor.pictures[0].pixels[0, 0].tolist() == [0, 0, 255]


def test_frames_know_their_video(start):
    resources, executor = resources_of(LoggingExecutor)
    engine = start([SEGMENT], PREDICTIONS, resources=resources)
    run_one(engine, image=frame(picture(), number=7), boxes=detector_output(1))
    run_one(engine, image=picture(1), boxes=detector_output(1))
    first, second = executor.seen
    assert (first.video.video_id, first.video.index, first.video.fps) == ("clip", 7, 30)
    assert second.video is None


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


def test_run_lengths_of_crops_are_written_where_the_picture_has_them(start):
    result = run_one(
        crop_workflow(start), serialize=True, image=picture(), boxes=detector_output(2)
    )
    for index, found in enumerate(result["predictions"]):
        [row] = found["predictions"]
        assert row["rle_mask"]["size"] == list(HW)
        x0, y0 = 40 + 30 * index + 7, 45 + 20 * index + 5
        wanted = np.zeros(HW, bool)
        wanted[y0 : y0 + 4, x0 : x0 + 4] = True
        assert np.array_equal(coco.decode(row["rle_mask"]).astype(bool), wanted)


def detected(count):
    """Boxes of a detector, as one block of the engine hands them to the next."""
    from roboflow_workflows.core_steps.loader import KINDS_DESERIALIZERS

    return KINDS_DESERIALIZERS["object_detection_prediction"]("boxes", detector_output(count))


def test_masks_changed_by_others_are_written_as_they_are_now():
    pytest.importorskip("roboflow_workflows", reason="needs the extra roboflow")
    from sam2_blocks.hosts.roboflow.values import serialize_rle_masks

    found = detected(2)
    found.mask = np.zeros((2, *HW), bool)
    found.mask[:, 3:5, 7:9] = True
    found.data["rle_mask"] = np.array([{"size": [1, 1], "counts": "01"}] * 2, object)
    for row in serialize_rle_masks(found)["predictions"]:
        assert coco.area(row["rle_mask"]) == 4
        corners = [(7, 3), (7, 4), (8, 4), (8, 3)]
        assert row["points"] == [{"x": x, "y": y} for x, y in corners]


def test_run_lengths_alone_are_drawn_and_written(start):
    from sam2_blocks.hosts.roboflow.values import serialize_masks, serialize_rle_masks

    found = detected(1)
    found.data["rle_mask"] = np.array([coco.encode(np.asfortranarray(ring_mask(HW), np.uint8))])
    draw = {"type": "draw/masks@v1", "name": "draw", "image": "$inputs.image", "labels": False}
    draw["predictions"] = "$inputs.boxes"
    image = picture()
    drawn = run_one(start([draw], {"drawn": "$steps.draw.image"}), image=image, boxes=found)
    changed = (drawn["drawn"].numpy_image != image).any(axis=2)
    assert changed[ring_mask(HW)].mean() > 0.9
    [row] = serialize_rle_masks(found)["predictions"]
    assert np.array_equal(coco.decode(row["rle_mask"]).astype(bool), ring_mask(HW))
    assert len(serialize_masks(found)["predictions"][0]["points"]) > 3


def test_boxes_are_written_as_the_engine_writes_them():
    pytest.importorskip("roboflow_workflows", reason="needs the extra roboflow")
    from roboflow_workflows.core_steps.common.serializers import serialise_sv_detections

    from sam2_blocks.hosts.roboflow.values import serialize_rle_masks

    boxes = detected(2)
    assert serialize_rle_masks(boxes) == serialise_sv_detections(boxes)


def test_equal_runs_give_equal_ids(start):
    runs = [
        run_one(start([SEGMENT], PREDICTIONS), image=picture(), boxes=detector_output(2))
        for _ in range(2)
    ]
    first, second = (run["predictions"].data["detection_id"].tolist() for run in runs)
    assert first == second
    assert len(set(first)) == 2


def test_boxes_without_an_id_get_the_same_in_equal_runs(engine_class):
    from sam2_blocks.hosts.roboflow.engine import load_engine
    from sam2_blocks.hosts.roboflow.values import value_to_theirs

    boxes = sv.Detections(np.array([[10, 10, 50, 50], [20, 20, 60, 60]], np.float32))
    one, again, other = (
        value_to_theirs(boxes, {"image": frame(picture(), name=name)}, load_engine())
        for name in ("a", "a", "b")
    )
    ids = one.data["detection_id"].tolist()
    assert again.data["detection_id"].tolist() == ids
    assert len({*ids, *other.data["detection_id"].tolist()}) == 4

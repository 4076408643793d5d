import json
from dataclasses import replace
from uuid import UUID

import numpy as np
import PIL.Image
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from supervision.detection.compact_mask import CompactMask

from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.detections import (
    _uuid,
    derive_ids,
    has_pixels,
    objects_to_detections,
    settle_masks,
    to_detections,
    to_rles,
)
from sam2_blocks.masks.rle import (
    mask_to_rle,
    masks_to_prediction,
    rle_to_coco,
    rle_to_mask,
    rles_to_boxes_xyxy,
)
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.testing import FakeExecutor, sample_image
from sam2_blocks.values import MaskPrediction, PromptSet

OUR_FIELDS = {
    "class_name",
    "detection_id",
    "parent_id",
    "prompt_detection_id",
    "prompt_error",
    "stability_score",
    "prompt_index",
    "iou_prediction",
}
STACKS = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda nhw: arrays(bool, nhw)
)


def predicted(masks: np.ndarray) -> MaskPrediction:
    count, height, width = masks.shape
    rles = tuple(mask_to_rle(mask) for mask in masks)
    return MaskPrediction(
        image_hw=(height, width),
        rles=rles,
        iou_prediction=np.linspace(0.9, 0.5, count, dtype=np.float32),
        low_res_logits=np.zeros((count, 4, 4), np.float32),
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )


def sample_masks() -> np.ndarray:
    masks = np.zeros((4, 30, 40), bool)
    masks[0, 5:20, 5:25] = True
    masks[0, 8:12, 10:15] = False
    masks[1, 10, 10] = True  # one pixel
    masks[2, :, :3] = True  # touches three borders
    masks[2, 29, 39] = True  # and a second part in the corner
    return masks  # the last one is empty


def detected(count: int) -> sv.Detections:
    return sv.Detections(
        xyxy=np.tile([1.0, 2.0, 30.0, 25.0], (count, 1)),
        confidence=np.linspace(0.3, 0.4, count),
        class_id=np.arange(count) + 7,
        tracker_id=np.arange(count) + 100,
        data={
            "class_name": np.array([f"cat {index}" for index in range(count)], np.str_),
            "detection_id": np.array([f"box-{index}" for index in range(count)], np.str_),
            "speed": [index / 2 for index in range(count)],
            "polygon": np.zeros((count, 4, 2)),
        },
        metadata={"camera": "north"},
    )


@pytest.fixture(params=["some", "none"])
def detections(request) -> sv.Detections:
    masks = sample_masks()[: None if request.param == "some" else 0]
    return to_detections(predicted(masks), prompting=detected(len(masks)))


@given(STACKS)
def test_every_pixel_survives(masks):
    detections = to_detections(predicted(masks))
    assert isinstance(detections.mask, MaskStack)
    assert np.array_equal(detections.mask.to_dense(), masks)
    decoded = [rle_to_mask(rle) for rle in to_rles(detections)]
    assert np.array_equal(np.array(decoded).reshape(masks.shape), masks)


def test_xyxy_is_the_tight_box_in_pixel_indices():
    detections = to_detections(predicted(sample_masks()))
    assert detections.xyxy.tolist() == [
        [5, 5, 24, 19],
        [10, 10, 10, 10],
        [0, 0, 39, 29],
        [0, 0, 0, 0],
    ]
    assert isinstance(detections.mask, CompactMask)
    assert detections.mask.area.tolist() == [280, 1, 91, 0]
    assert detections.mask.bbox_xyxy.tolist() == detections.xyxy.tolist()


def test_the_fields_of_the_detector_are_carried_over():
    detector = detected(4)
    detections = to_detections(predicted(sample_masks()), prompting=detector, image_id="x.jpg")
    for name in ("confidence", "class_id", "tracker_id"):
        assert getattr(detections, name).tolist() == getattr(detector, name).tolist()
    assert detections.data["class_name"].tolist() == ["cat 0", "cat 1", "cat 2", "cat 3"]
    assert detections.data["speed"] == [0, 0.5, 1, 1.5]
    ids = ["box-0", "box-1", "box-2", "box-3"]
    assert detections.data["prompt_detection_id"].tolist() == ids
    assert detections.data["parent_id"].tolist() == ["x.jpg"] * 4
    assert detections.metadata == {"camera": "north"}


def test_the_detector_keeps_its_own_fields():
    detector = detected(4)
    detections = to_detections(predicted(sample_masks()), prompting=detector)
    detections.confidence[:] = 0
    detections.data["speed"][0] = 9
    detections.metadata["camera"] = "south"
    assert detector == detected(4)
    assert detector.metadata == {"camera": "north"}


def test_the_old_outline_is_not_taken_for_ours():
    detections = to_detections(predicted(sample_masks()), prompting=detected(4))
    assert set(detections.data) == OUR_FIELDS | {"speed"}


def test_without_a_detector_the_model_gives_the_confidence():
    prediction = predicted(sample_masks())
    detections = to_detections(prediction, image_id="x.jpg", class_name="thing")
    assert detections.confidence.tolist() == prediction.iou_prediction.tolist()
    assert detections.class_id.tolist() == [0, 0, 0, 0]
    assert detections.tracker_id is None
    assert detections.data["class_name"].tolist() == ["thing"] * 4
    assert detections.data["parent_id"].tolist() == ["x.jpg"] * 4
    assert detections.data["prompt_index"].tolist() == [0, 1, 2, 3]


def test_both_scores_are_kept():
    prediction = predicted(sample_masks())
    detections = to_detections(prediction, prompting=detected(4))
    assert detections.confidence.tolist() == detected(4).confidence.tolist()
    assert detections.data["iou_prediction"].tolist() == prediction.iou_prediction.tolist()


def test_names_without_ids_are_numbered_after_those_of_the_pictures_before():
    detector = detected(4)
    detector.class_id = None
    detector.data["class_name"] = np.array(["lid", "cup", "lid", "pot"])
    numbers = {"cup": 0, "pan": 1}
    made = to_detections(predicted(sample_masks()), prompting=detector, class_numbers=numbers)
    assert made.class_id.tolist() == [2, 0, 2, 3]
    assert numbers == {"cup": 0, "pan": 1, "lid": 2, "pot": 3}
    alone = to_detections(predicted(sample_masks()), prompting=detector)
    assert alone.class_id.tolist() == [0, 1, 0, 2]


def test_class_ids_without_names_get_names_that_differ():
    detector = sv.Detections(xyxy=np.ones((4, 4)), class_id=np.array([2, 0, 2, 1]))
    detections = to_detections(predicted(sample_masks()), prompting=detector)
    assert detections.data["class_name"].tolist() == ["class_2", "class_0", "class_2", "class_1"]


def test_empty_masks_are_dropped_on_request():
    detections = to_detections(predicted(sample_masks()), prompting=detected(4), drop_empty=True)
    assert detections.data["prompt_index"].tolist() == [0, 1, 2]
    nothing = to_detections(predicted(sample_masks()[:0]), drop_empty=True)
    assert len(nothing) == 0
    assert set(nothing.data) == OUR_FIELDS


def test_rows_must_match():
    with pytest.raises(ValueError, match="prompting must have one row for each of 4 masks, got 3"):
        to_detections(predicted(sample_masks()), prompting=detected(3))
    with pytest.raises(ValueError, match="prompts must have one row for each of 4 masks, got 0"):
        to_detections(predicted(sample_masks()), prompts=PromptSet())


def test_no_masks_have_the_types_of_some_masks():
    some = to_detections(predicted(sample_masks()), prompting=detected(4))
    none = to_detections(predicted(sample_masks()[:0]), prompting=detected(0))
    assert len(none) == 0
    assert isinstance(none.mask, CompactMask)
    assert none.mask.shape == (0, 30, 40)
    assert set(none.data) == set(some.data)
    for name in ("xyxy", "confidence", "class_id", "tracker_id"):
        assert getattr(none, name).dtype == getattr(some, name).dtype
    for name in OUR_FIELDS:
        assert none.data[name].dtype.kind == some.data[name].dtype.kind
        assert none.data[name].shape[1:] == some.data[name].shape[1:]


def test_a_detector_that_found_nothing_is_no_special_case():
    none = to_detections(predicted(sample_masks()[:0]), prompting=sv.Detections.empty())
    assert set(none.data) == OUR_FIELDS


# --- one truth --------------------------------------------------------------------------------


def masks_of(detections: sv.Detections) -> np.ndarray:
    return np.array([rle_to_mask(rle) for rle in to_rles(detections)])


def coco_column(masks: np.ndarray) -> np.ndarray:
    column = np.empty(len(masks), object)
    column[:] = [rle_to_coco(mask_to_rle(mask)) for mask in masks]
    return column


def test_what_moves_and_cuts_masks_is_in_their_run_lengths():
    detections = to_detections(predicted(sample_masks()))
    detections.mask = detections.mask.with_offset(30, -6, (50, 60))
    moved = np.zeros((4, 50, 60), bool)
    moved[:, :24, 30:] = sample_masks()[:, 6:, :30]
    assert np.array_equal(masks_of(detections), moved)


def test_masks_of_any_form_have_run_lengths():
    detections = to_detections(predicted(sample_masks()))
    merged = sv.Detections.merge([detections, detections])
    assert type(merged.mask) is CompactMask
    assert np.array_equal(masks_of(merged), np.concatenate([sample_masks()] * 2))
    detections.mask = sample_masks()
    assert np.array_equal(masks_of(detections), sample_masks())


def test_run_lengths_alone_become_masks():
    detections = to_detections(predicted(sample_masks()))
    detections.mask, detections.data["rle_mask"] = None, coco_column(sample_masks())
    settled = settle_masks(detections)
    assert np.array_equal(settled.mask, sample_masks())
    assert "rle_mask" not in settled.data
    assert np.array_equal(masks_of(detections), sample_masks())
    assert detections.mask is None  # what was given is as it was


def test_of_masks_and_run_lengths_the_masks_are_true():
    detections = to_detections(predicted(sample_masks()))
    detections.data["rle_mask"] = coco_column(np.zeros((4, 9, 9), bool))
    assert np.array_equal(masks_of(detections), sample_masks())
    assert "rle_mask" not in settle_masks(detections).data


def test_detections_in_one_form_stay_what_they_are(detections):
    assert settle_masks(detections) is detections


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([None], r"data\['rle_mask'\] of row 0: "),
        ([{"size": [2, 2]}], r"of row 0: a COCO RLE needs 'size' and 'counts'"),
        (
            [{"size": [2, 2], "counts": [4]}, {"size": [2, 3], "counts": [6]}],
            r"data\['rle_mask'\]: mask 1 has size \(2, 3\), the others \(2, 2\)",
        ),
    ],
)
def test_wrong_run_lengths_are_named(column, message):
    detections = sv.Detections(np.zeros((len(column), 4)))
    detections.data["rle_mask"] = np.array([*column, None], object)[:-1]
    with pytest.raises(ValueError, match=message):
        settle_masks(detections)


def test_masks_of_another_picture_are_refused():
    detections = to_detections(predicted(sample_masks()))
    assert len(to_rles(detections, (30, 40))) == 4
    with pytest.raises(ValueError, match="the masks are 40x30 pixels, their picture is 80x60"):
        to_rles(detections, (60, 80))
    assert to_rles(detections[:0], (60, 80)) == ()


def test_boxes_alone_have_no_run_lengths():
    with pytest.raises(ValueError, match="wants detections with masks, got boxes alone"):
        to_rles(detected(2))
    assert to_rles(sv.Detections.empty()) == ()


def test_an_empty_mask_has_no_pixels_and_a_box_has():
    assert has_pixels(to_detections(predicted(sample_masks()))).tolist() == [True] * 3 + [False]
    assert has_pixels(detected(2)).tolist() == [True, True]


# --- what supervision does with them ----------------------------------------------------------


@pytest.mark.parametrize(
    "annotator",
    [
        sv.MaskAnnotator(),
        sv.PolygonAnnotator(),
        sv.BoxAnnotator(),
        sv.HaloAnnotator(),
        sv.LabelAnnotator(),
    ],
    ids=lambda annotator: type(annotator).__name__,
)
def test_annotators_draw_them(annotator, detections):
    scene = np.zeros((30, 40, 3), np.uint8)
    drawn = annotator.annotate(scene.copy(), detections)
    assert drawn.shape == scene.shape
    assert len(detections) == 0 or drawn.any()


def test_they_can_be_filtered(detections):
    confident = detections[detections.confidence > 0.32]
    assert set(confident.data) == set(detections.data)
    assert isinstance(confident.mask, CompactMask)
    assert len(detections[:1]) == min(1, len(detections))


def test_they_merge_with_each_other_and_with_none(detections):
    other = to_detections(predicted(sample_masks()), prompting=detected(4))
    merged = sv.Detections.merge([detections, other, detections[:0]])
    assert len(merged) == len(detections) + 4
    assert isinstance(merged.mask, CompactMask)
    assert np.array_equal(merged.mask.to_dense()[-4:], sample_masks())
    assert set(merged.data) == set(other.data)


def test_they_pass_nms_and_iterate(detections):
    assert len(detections.with_nms(0.99, class_agnostic=False)) == len(detections)
    assert [set(data) for *_, data in detections] == [set(detections.data)] * len(detections)


def test_they_are_exported_to_coco(detections, tmp_path):
    picture = str(tmp_path / "x.png")
    PIL.Image.new("RGB", (40, 30)).save(picture)
    visible = detections[detections.data["prompt_index"] % 2 == 0]  # it warns of a single pixel
    visible.class_id = np.zeros(len(visible), int)
    dataset = sv.DetectionDataset(["cat"], [picture], {picture: visible})
    dataset.as_coco(annotations_path=str(tmp_path / "coco.json"))
    rows = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert [row["area"] for row in rows] == [280, 91][: len(visible)]


@pytest.mark.parametrize(("value", "got"), [([], "list. Turn them one by one"), (3, "int")])
def test_only_masks_become_detections(value, got):
    with pytest.raises(TypeError, match=f"wants a MaskPrediction, .* AutomaticMasks, got {got}"):
        to_detections(value)


def test_masks_found_without_prompts_bring_their_points_and_stability():
    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image()])
    masks = generate_masks(executor, embedding, AutomaticSettings(points_per_side=2))
    found = to_detections(masks)
    assert found.data["stability_score"].tolist() == masks.stability_score.tolist()


def test_equal_runs_give_equal_ids_and_different_rows_their_own():
    masks = np.zeros((3, 24, 32), bool)
    masks[:2, 3:9, 4:12] = True
    ids = [
        to_detections(masks_to_prediction(masks), image_id=name).data["detection_id"].tolist()
        for name in ("a.png", "a.png", "b.png")
    ]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 6
    assert all(UUID(id_).version == 5 for id_ in ids[0])
    masks[2, 5, 5] = True
    other = to_detections(masks_to_prediction(masks), image_id="a.png").data["detection_id"]
    assert other.tolist()[:2] == ids[0][:2]
    assert other[2] != ids[0][2]


@pytest.mark.parametrize("masked", [True, False])
def test_what_a_detector_found_becomes_detections(masked):
    mask = np.zeros((8, 9), bool)
    mask[2:4, 3:6] = True
    found = FoundObjects(
        image_hw=(8, 9),
        boxes_xyxy=np.array([[3, 2, 6, 4]], np.float32),
        confidence=np.array([0.5], np.float32),
        class_ids=np.array([7]),
        class_names=("cup",),
        rles=(mask_to_rle(mask),) if masked else None,
    )
    made = objects_to_detections(found, image_id="a.png")
    assert made.xyxy.tolist() == [[3, 2, 6, 4]]
    assert made.class_id.tolist() == [7]
    assert made.confidence.tolist() == [0.5]
    assert made.data["class_name"].tolist() == ["cup"]
    assert made.data["parent_id"].tolist() == ["a.png"]
    assert np.array_equal(np.asarray(made.mask)[0], mask) if masked else made.mask is None
    again, other = (objects_to_detections(found, image_id=name) for name in ("a.png", "b.png"))
    assert made.data["detection_id"].tolist() == again.data["detection_id"].tolist()
    assert made.data["detection_id"].tolist() != other.data["detection_id"].tolist()
    nothing = objects_to_detections(found.select(np.zeros(0, int)), image_id="a.png")
    assert len(nothing) == 0
    assert nothing.xyxy.shape == (0, 4)


@given(st.binary(min_size=16, max_size=32))
def test_ids_are_uuids_of_version_5(digest):
    assert _uuid(digest) == str(UUID(bytes=digest[:16], version=5))


def test_ids_that_are_derived_say_which_row_of_which_picture():
    boxes = sv.Detections(np.array([[1, 2, 3, 4], [1, 2, 3, 4]], np.float32))
    ids = derive_ids(boxes, "a.png").tolist()
    assert derive_ids(boxes, "a.png").tolist() == ids
    sure = replace(boxes, confidence=np.array([0.5, 0.5], np.float32))
    others = [*derive_ids(boxes, "b.png").tolist(), *derive_ids(sure, "a.png").tolist()]
    assert len({*ids, *others}) == 6

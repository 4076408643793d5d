from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.kinds import BUILTIN_KINDS, check_value, parse_value
from sam2_blocks.testing import sample_detections, sample_value
from sam2_blocks.values import Image

KINDS = {kind.name: kind for kind in BUILTIN_KINDS}
BOXES = KINDS["object_detection_prediction"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("empty", [False, True])
def test_a_sample_fits_its_kind(name, empty):
    KINDS[name].check(sample_value(name, empty=empty))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("image", np.zeros((2, 2, 3), np.uint8), r"wants Image, got uint8 array \(2, 2, 3\)"),
        ("image_embedding", None, "wants Embedding, got NoneType"),
        ("object_detection_prediction", [], "wants supervision.Detections, got list"),
        ("integer", True, "wants int, got bool"),
        ("integer", 1.5, "wants int, got float"),
        ("float", "1", "wants float or int, got str"),
        ("string", 1, "wants str, got int"),
    ],
)
def test_a_wrong_value_says_what_came(kind, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        KINDS[kind].check(value)


def test_boxes_must_be_finite():
    boxes = sv.Detections(np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32))
    boxes.xyxy[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"box 1 is not finite: \[0.0, nan, 1.0, 1.0\]"):
        BOXES.check(boxes)


def test_masks_are_wanted_where_the_kind_has_them():
    boxes = sv.Detections(np.array([[0, 0, 1, 1]], np.float32))
    with pytest.raises(ValueError, match="wants detections with masks"):
        KINDS["instance_segmentation_prediction"].check(boxes)
    masks = sample_detections()
    del masks.data["rle_mask"]
    with pytest.raises(ValueError, match=r"data\['rle_mask'\] for 2 detections, got 0"):
        KINDS["rle_instance_segmentation_prediction"].check(masks)


def test_one_of_several_kinds_must_fit():
    check_value(5, [KINDS["string"], KINDS["integer"]])
    with pytest.raises(TypeError, match="string: wants str, got float; integer: wants int, got"):
        check_value(1.5, [KINDS["string"], KINDS["integer"]])


def test_a_wrong_picture_leaves_the_other_kinds_their_turn():
    wrong = Image(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(TypeError, match="image: image 'image': wants a uint8 array"):
        check_value(wrong, [KINDS["image"], KINDS["string"]])
    check_value(wrong, [KINDS["image"], KINDS["*"]])


def test_boxes_are_parsed_from_rows():
    made = parse_value([[0, 1, 2, 3], {"box_xyxy": [4, 5, 6, 7], "class_name": "cat"}], [BOXES])
    assert made.xyxy.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert made.data["class_name"].tolist() == ["object", "cat"]
    assert made.confidence is None


def test_no_rows_are_typed_empty_detections():
    made = parse_value([], [BOXES])
    assert made.xyxy.shape == (0, 4)
    assert "class_name" in made.data


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 2, 3], r"row 0: wants box_xyxy \[x0, y0, x1, y1\] and .*, got \[1, 2, 3\]"),
        ([0, 0, 1, float("nan")], "row 0: wants box_xyxy"),
        ({"box_xyxy": [0, 0, 1, 1], "confidence": float("inf")}, "row 0: wants box_xyxy"),
        ({"box_xyxy": [0, 0, 1, 1], "class_id": 10**30}, "row 0: wants box_xyxy"),
        ({"box": [1, 2, 3, 4]}, "row 0: wants box_xyxy"),
        ({"box_xyxy": "abcd"}, "row 0: wants box_xyxy"),
    ],
)
def test_a_wrong_row_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        parse_value([row], [BOXES])


def test_confidence_is_for_all_rows_or_none():
    rows = [{"box_xyxy": [0, 0, 1, 1], "confidence": 0.5}, [0, 0, 1, 1]]
    with pytest.raises(ValueError, match="row 0 has a confidence, row 1 has none; give all or no"):
        parse_value(rows, [BOXES])


def test_null_is_not_given():
    row = {"box_xyxy": [0, 0, 1, 1], "class_name": None, "class_id": None, "confidence": None}
    made = parse_value([row], [BOXES])
    assert made.data["class_name"].tolist() == ["object"]
    assert made.class_id.tolist() == [0]


def test_prompts_are_parsed():
    prompts = parse_value(
        [{"box_xyxy": [0, 0, 4, 4], "point_coords": [[1, 1], [2, 2]], "point_labels": [1, 0]}],
        [KINDS["prompts"]],
    )
    [prompt] = prompts.prompts
    assert prompt.point_coords.dtype == np.float32
    assert prompt.point_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"box_xyxy": [0, 0, 1, 1]}, "wants a list of mappings"),
        ([{}], "prompt 0: wants box_xyxy, point_coords and point_labels, got"),
        ([{"box_xyxy": [0, 0, 1]}], "prompt 0: .*wants"),
        ([{"box_xyxy": [0, 0, 1, 10**400]}], "prompt 0: int too large to convert to float"),
        ([{"point_coords": [[1, 1]], "point_labels": [1, 0]}], "prompt 0: .*wants"),
        ([{"point_coords": [[1, 1]], "point_labels": [0.7]}], "prompt 0: labels are 1"),
    ],
)
def test_wrong_prompts_are_named(rows, message):
    with pytest.raises((TypeError, ValueError), match=message):
        parse_value(rows, [KINDS["prompts"]])

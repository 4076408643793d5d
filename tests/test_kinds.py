from __future__ import annotations

import json

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.kinds import (
    BUILTIN_KINDS,
    Kind,
    check_value,
    dump_value,
    element_kind,
    find_kind,
    kinds_fit,
    list_kind,
    parse_value,
)
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.testing import sample_detections, sample_value
from sam2_blocks.values import Image, Prompt, PromptSet

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


def test_boxes_of_masks_must_be_finite():
    boxes = sv.Detections(np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32))
    boxes.xyxy[1, 1] = np.nan
    BOXES.check(boxes)  # a detector's: who uses it, skips that row
    boxes.mask = np.ones((2, 4, 4), bool)
    with pytest.raises(ValueError, match=r"box 1 is not finite: \[0.0, nan, 1.0, 1.0\]"):
        KINDS["instance_segmentation_prediction"].check(boxes)


def test_masks_are_wanted_where_the_kind_has_them():
    boxes = sv.Detections(np.array([[0, 0, 1, 1]], np.float32))
    with pytest.raises(ValueError, match="wants detections with masks"):
        KINDS["instance_segmentation_prediction"].check(boxes)


def test_one_of_several_kinds_must_fit():
    check_value(5, [KINDS["string"], KINDS["integer"]])
    with pytest.raises(TypeError, match="string: wants str, got float; integer: wants int, got"):
        check_value(1.5, [KINDS["string"], KINDS["integer"]])


def test_a_wrong_picture_leaves_the_other_kinds_their_turn():
    wrong = Image(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(TypeError, match="image: image 'image': wants a uint8 array"):
        check_value(wrong, [KINDS["image"], KINDS["string"]])
    check_value(wrong, [KINDS["image"], KINDS["*"]])


def test_what_is_wrong_with_a_picture_is_said_where_it_is_read_too():
    wrong = Image(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ImageError, match="in RGB, got float32 array"):
        parse_value(wrong, [KINDS["image"]])


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


# --- lists ------------------------------------------------------------------------------------


def test_a_list_of_a_kind_is_a_kind():
    lists = find_kind("list of integer", KINDS)
    assert lists.name == "list of integer"
    assert check_value((1, 2), [lists]) == [1, 2]
    with pytest.raises(TypeError, match="list of integer: wants a list, got int"):
        check_value(1, [lists])
    with pytest.raises(TypeError, match=r"list of integer: \[1\]: wants int, got str"):
        check_value([1, "2"], [lists])


def test_lists_are_parsed_and_dumped_each_as_its_kind():
    lists = find_kind("list of object_detection_prediction", KINDS)
    made = parse_value([[[0, 1, 2, 3]], []], [lists])
    assert [len(found) for found in made] == [1, 0]
    first, second = dump_value(made, [lists])
    assert first[0]["box_xyxy"] == [0, 1, 2, 3]
    assert second == []


def test_lists_of_lists_are_kinds_but_not_without_end():
    name = "list of list of integer"
    check_value([[1], []], [find_kind(name, KINDS)])
    assert element_kind(name) == "integer"
    assert find_kind("list of " * 9 + "integer", KINDS) is None
    assert find_kind("list of nothing", KINDS) is None


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("list of image", "list of image", True),
        ("list of image", "list of *", True),
        ("list of image", "*", True),
        ("list of image", "list_of_values", True),
        ("list_of_values", "list of image", False),
        ("image", "list of image", False),
        ("list of image", "image", False),
        ("list of image", "list of string", False),
    ],
)
def test_lists_fit_what_takes_them(given, wanted, fits):
    assert kinds_fit(given, wanted) == fits


# --- to plain data ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "list of "])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "image_embedding"])
def test_every_sample_becomes_plain_data(name, prefix):
    kind = find_kind(prefix + name, KINDS)
    for empty in (False, True):
        plain = dump_value(sample_value(kind, empty=empty), [kind])
        assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("name", ["prompts", "object_detection_prediction", "string", "float"])
def test_what_was_dumped_can_be_parsed(name):
    kind = KINDS[name]
    plain = dump_value(sample_value(name), [kind])
    again = dump_value(parse_value(plain, [kind]), [kind])
    if name != "object_detection_prediction":  # rows keep what parsing has no use for
        assert again == plain
    else:
        assert [row["box_xyxy"] for row in again] == [row["box_xyxy"] for row in plain]


def test_masks_are_written_as_asked():
    kind = KINDS["instance_segmentation_prediction"]
    masks = sample_detections(1)
    [row] = dump_value(masks, [kind], DumpOptions(polygons=False))
    assert "segmentation" in row
    assert "polygons" not in row
    [row] = dump_value(masks, [kind], DumpOptions(rle=False, tolerance_px=0))
    assert "segmentation" not in row
    assert row["polygons_iou"] == 1


def test_nothing_is_dumped_as_what_it_is_not():
    assert dump_value(None, [KINDS["image"]]) is None
    with pytest.raises(TypeError, match="image: wants Image, got int; string: wants str, got int"):
        dump_value(3, [KINDS["image"], KINDS["string"]])


class Point:
    """A value of a plugin."""

    x, y = 1.0, 2.0


def test_a_kind_of_a_plugin_says_how_it_is_dumped():
    silent = Kind("point", "Point", lambda value: None)
    assert dump_value({"x": np.float32(1.5)}, [silent]) == {"x": 1.5}
    with pytest.raises(
        TypeError, match="as point: a Point is no plain data; give its kind a 'dump"
    ):
        dump_value([Point()], [silent])
    kind = Kind("point", "Point", lambda value: None, dump=lambda value, _: [value.x, value.y])
    assert dump_value(Point(), [kind]) == [1, 2]
    assert dump_value([Point()], [list_kind(kind)]) == [[1, 2]]


def test_a_prompt_with_logits_has_no_plain_form():
    prompts = PromptSet((Prompt(mask_input=np.zeros((1, 4, 4), np.float32)),))
    with pytest.raises(TypeError, match="as prompts: prompt 0: mask_input cannot be written"):
        dump_value(prompts, [KINDS["prompts"]])


# --- one truth --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("instance")] + ["*"])
def test_run_lengths_alone_are_masks_from_the_border_on(name):
    masks = sample_detections()
    wanted = masks.mask
    masks.data["rle_mask"] = [rle_to_coco(rle) for rle in to_rles(masks)]
    masks.mask = None
    settled = parse_value(masks, [KINDS[name]])
    if name == "*":  # no kind, no form
        assert settled is masks
    else:
        assert settled.mask == wanted
        assert "rle_mask" not in settled.data


def test_wrong_run_lengths_are_refused_at_the_border():
    boxes = sv.Detections(np.array([[0, 0, 1, 1]], np.float32))
    boxes.data["rle_mask"] = [{"size": [2, 2], "counts": [5]}]
    with pytest.raises(
        TypeError, match=r"object_detection_prediction: data\['rle_mask'\] of row 0"
    ):
        check_value(boxes, [BOXES])


@pytest.mark.parametrize("part", ["check", "dump"])
@pytest.mark.parametrize("raised", [SystemExit(0), KeyError("k"), RecursionError("deep")])
def test_a_kind_that_fails_in_any_way_is_said_to_be_unwritten(part, raised):
    def leave(*_):
        raise raised

    odd = Kind("odd", "", leave if part == "check" else lambda _: None, dump=leave)
    with pytest.raises(TypeError, match=r"odd: .*(SystemExit: 0|'k'|deep)"):
        dump_value(1.0, [odd])
    if part == "check":
        assert dump_value(1.0, [odd, KINDS["float"]]) == 1.0

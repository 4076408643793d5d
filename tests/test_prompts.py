from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.prompts import (
    NO_PROMPT,
    check_prompts,
    parse_prompts,
    prompts_to_plain,
    split_prompts,
    to_prompt_set,
)
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Prompt, PromptSet

HW = (60, 80)
NAN, INF = float("nan"), float("inf")


def one(**fields) -> PromptSet:
    arrays = {name: np.array(value) for name, value in fields.items()}
    return PromptSet((Prompt(**arrays),))


def test_good_prompts_pass_and_get_their_types():
    prompts = one(
        box_xyxy=[1, 2, 80, 60],
        point_coords=[[0, 0], [80, 60]],
        point_labels=[1, 0],
        mask_input=np.zeros((1, 4, 4)),
    )
    (checked,) = check_prompts(prompts, HW).prompts
    assert checked.box_xyxy is not None
    assert checked.box_xyxy.tolist() == [1, 2, 80, 60]
    assert checked.box_xyxy.dtype == np.float32
    assert checked.point_coords is not None
    assert checked.point_coords.tolist() == [[0, 0], [80, 60]]
    assert checked.point_labels is not None
    assert checked.point_labels.dtype == np.int32
    assert checked.mask_input is not None
    assert checked.mask_input.dtype == np.float32


def test_no_prompts_pass():
    assert len(check_prompts(PromptSet(), HW)) == 0


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [0, 0, 0, 0], [79.5, 59.5, 79.5, 59.5]])
def test_the_box_of_a_single_pixel_passes(box):
    assert len(check_prompts(PromptSet.from_boxes([box]), HW)) == 1


def test_no_points_are_no_prompt():
    empty = {"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0)}
    (checked,) = check_prompts(one(box_xyxy=[1, 2, 3, 4], **empty), HW).prompts
    assert checked.point_coords is None
    with pytest.raises(ValueError, match="prompt 0 is empty; give a box, points or mask_input"):
        check_prompts(one(**empty), HW)


def test_boxes_are_clipped_with_one_warning():
    boxes = [[-5, -5, 10, 10], [1, 1, 2, 2], [70, 50, 99, 99]]
    message = r"80x60 image and were clipped to it: prompt 0 \[-5, -5, 10, 10\], and 1 more"
    with pytest.warns(UserWarning, match=message) as caught:
        checked = check_prompts(PromptSet.from_boxes(boxes), HW)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [list(p.box_xyxy) for p in checked.prompts if p.box_xyxy is not None] == [
        [0, 0, 10, 10],
        [1, 1, 2, 2],
        [70, 50, 80, 60],
    ]


def test_boxes_are_clipped_silently_when_asked_to():
    boxes = PromptSet.from_boxes([[-5, -5, 4, 4]])
    [prompt] = check_prompts(boxes, HW, warn=False).prompts
    assert prompt.box_xyxy.tolist() == [0, 0, 4, 4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box_xyxy": [NAN, 0, 5, 5]}, r"prompt 0: box \[nan, 0, 5, 5\] is not finite"),
        ({"box_xyxy": [0, 0, INF, 5]}, r"prompt 0: box \[0, 0, inf, 5\] is not finite"),
        ({"box_xyxy": [0, 0, 1e300, 5]}, r"box \[0, 0, inf, 5\] is not finite"),
        ({"box_xyxy": [9, 0, 5, 5]}, r"box \[9, 0, 5, 5\] is inverted; give it as x_min, y_min"),
        ({"box_xyxy": [0, 9, 5, 5]}, "is inverted"),
        ({"box_xyxy": [80, 0, 90, 5]}, r"lies wholly outside the 80x60 image; is it in pixels"),
        ({"box_xyxy": [0, 60, 5, 70]}, "lies wholly outside"),
        ({"box_xyxy": [-9, 0, 0, 5]}, "lies wholly outside"),
        ({"box_xyxy": [-9, -9, -5, -5]}, "lies wholly outside"),
        ({"box_xyxy": [1, 2, 3]}, r"a box wants 4 numbers, got shape \(3,\)"),
        ({"point_coords": [[1, 1]]}, "point_coords and point_labels go together"),
        ({"point_labels": [1]}, "point_coords and point_labels go together"),
        (
            {"point_coords": [[1, 1], [82, 5]], "point_labels": [1, 1]},
            r"point 1 at \[82, 5\] is not inside the 80x60 image",
        ),
        ({"point_coords": [[1, NAN]], "point_labels": [1]}, r"point 0 at \[1, nan\] is not inside"),
        ({"point_coords": [1, 1], "point_labels": [1]}, r"wants shape \(P, 2\), got \(2,\)"),
        ({"point_coords": [[1, 1]], "point_labels": [1, 0]}, "wants 1 labels, got shape"),
        ({"point_coords": [[1, 1]], "point_labels": [-1]}, r"or 0 \(background\), got \[-1\]"),
        ({"mask_input": np.zeros((4, 4))}, r"wants logits \(1, h, w\), got shape \(4, 4\)"),
        ({"mask_input": np.full((1, 2, 2), NAN)}, "mask_input has values that are not finite"),
    ],
)
def test_what_means_nothing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_prompts(one(**fields), HW)


def test_the_message_names_the_prompt():
    with pytest.raises(ValueError, match=r"^prompt 2: box"):
        check_prompts(PromptSet.from_boxes([[1, 1, 2, 2], [1, 1, 2, 2], [5, 1, 2, 2]]), HW)


def test_ten_thousand_boxes_all_come_through():
    boxes = np.tile(np.float32([1, 1, 9, 9]), (10_000, 1))
    checked = check_prompts(PromptSet.from_boxes(boxes), HW)
    assert np.array_equal([prompt.box_xyxy for prompt in checked.prompts], boxes)


BIG = (480, 640)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-0.001, 2, 80.001, 60.001], [0, 2, 80, 60]),
        ([-1, -1, 81, 61], [0, 0, 80, 60]),
        ([80.5, 3, 81, 5], [80, 3, 80, 5]),
    ],
)
def test_up_to_a_pixel_outside_is_clipped_without_a_word(box, clipped):
    [prompt] = check_prompts(PromptSet.from_boxes([box]), HW).prompts
    assert prompt.box_xyxy.tolist() == clipped


def test_a_click_up_to_a_pixel_outside_is_moved_to_the_edge():
    prompts = one(point_coords=[[-0.5, 61], [3, 4]], point_labels=[1, 0])
    [prompt] = check_prompts(prompts, HW).prompts
    assert prompt.point_coords.tolist() == [[0, 60], [3, 4]]


def test_inverted_boxes_that_fit_as_sizes_get_a_hint():
    message = r"As x, y, width, height it would be \[400, 300, 500, 350\]"
    with pytest.raises(ValueError, match=message):
        check_prompts(PromptSet.from_boxes([[400, 300, 100, 50]]), BIG)
    with pytest.raises(ValueError, match=r"As centre x, .* would be \[575, 175, 625, 425\]: is"):
        check_prompts(PromptSet.from_boxes([[600, 300, 50, 250]]), BIG)
    with pytest.raises(ValueError, match=r"x_max, y_max\.$"):  # 655 px are too wide
        check_prompts(PromptSet.from_boxes([[630, 300, 50, 250]]), BIG)


def test_shares_of_the_picture_are_warned_of():
    boxes = PromptSet.from_boxes([[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1]])
    message = (
        r"a.png: every box lies between 0 and 1, such as \[0.1, 0.2, 0.5, 0.9\], in an image of"
    )
    with pytest.warns(UserWarning, match=message):
        check_prompts(boxes, BIG, name="a.png")
    check_prompts(boxes, HW)  # a pixel of a picture this small may be meant
    check_prompts(PromptSet.from_boxes([[0.5, 0, 1, 1], [5, 5, 9, 9]]), BIG)
    check_prompts(PromptSet.from_boxes([[0, 0, 0, 0], [0, 0, 1, 1]]), BIG)


def test_clicks_between_0_and_1_are_warned_of():
    shares = one(point_coords=[[0.5, 0.25], [1, 1]], point_labels=[1, 0])
    with pytest.warns(UserWarning, match=r"every point lies .* such as \[0.5, 0.25, 1, 1\], in an"):
        check_prompts(shares, BIG)
    both = one(box_xyxy=[0, 0, 1, 1], point_coords=[[0.5, 0.5]], point_labels=[1])
    with pytest.warns(UserWarning, match="every point lies between 0 and 1"):
        check_prompts(both, BIG)
    check_prompts(one(box_xyxy=[9, 9, 40, 40], point_coords=[[0.5, 0.5]], point_labels=[1]), BIG)
    check_prompts(PromptSet((NO_PROMPT,)), BIG)


def test_bad_prompts_are_parted_from_good_ones():
    boxes = [[1, 1, 5, 5], [NAN, 1, 5, 5], [2, 2, 6, 6], [9, 9, 3, 3], [200, 1, 300, 9]]
    good, bad = split_prompts(PromptSet.from_boxes(boxes), HW)
    assert [prompt.box_xyxy.tolist() for prompt in good.prompts] == [boxes[0], boxes[2]]
    assert list(bad) == [1, 3, 4]
    assert "prompt 4: box [200, 1, 300, 9] lies wholly outside" in bad[4]


def test_checked_prompts_are_not_checked_again(monkeypatch):
    checked = check_prompts(PromptSet.from_boxes([[1, 1, 5, 5]]), HW)
    assert check_prompts(checked, HW) is checked
    with pytest.raises(ValueError, match="wholly outside the 3x3 image"):  # of another size
        check_prompts(check_prompts(PromptSet.from_boxes([[5, 5, 9, 9]]), HW), (3, 3))


def test_what_stands_for_prompts_becomes_prompts():
    boxes = [[1, 2, 3, 4], [5, 6, 7, 8]]
    detections = sv.Detections(np.array(boxes, float))
    for form in (boxes, np.array(boxes), detections, [{"box_xyxy": box} for box in boxes]):
        prompts = to_prompt_set(form).prompts
        assert [prompt.box_xyxy.tolist() for prompt in prompts] == boxes
    click = Prompt(None, np.array([[3, 4]], np.float32), np.array([1], np.int32))
    assert to_prompt_set(click).prompts == to_prompt_set([click]).prompts == (click,)
    assert len(to_prompt_set([])) == len(to_prompt_set(sv.Detections.empty())) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "wants prompts: a PromptSet, supervision.Detections, .*; got int"),
        (sample_image(), "got Image"),
        (masks_to_prediction(np.ones((1, 4, 4), bool)), "from_boxes.prediction.mask_box_xyxy"),
    ],
)
def test_what_does_not_is_refused_in_our_words(given, message):
    with pytest.raises(TypeError, match=message):
        to_prompt_set(given)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"point_coords": [[80, 60, 1], [10, 10, 0]]}, "probably the label: give it as point_lab"),
        ({"point_coords": [80, 60]}, r"For one point give \[\[x, y\]\]"),
        ({"box_xyxy": [1, 2, 3, 4, 0.9, 0]}, "prompt 0: a box wants 4 numbers.*confidence and cl"),
    ],
)
def test_mappings_are_never_reshaped(row, message):
    with pytest.raises(ValueError, match=message):
        parse_prompts([row])


def test_prompts_travel():
    rows = [{"box_xyxy": [1.0, 2.0, 3.0, 4.0]}, {"point_coords": [[5.0, 6.0]], "point_labels": [0]}]
    assert prompts_to_plain(parse_prompts(rows)) == rows


def test_the_class_of_a_prompt_travels_with_it():
    rows = [{"box_xyxy": [1, 2, 30, 20], "class_name": "cup"}, {"box_xyxy": [1, 2, 9, 9]}]
    prompts = parse_prompts(rows)
    assert prompts_to_plain(prompts) == rows
    for tried in (prompts, PromptSet((*prompts.prompts, one(point_coords=[[3, 3]]).prompts[0]))):
        good, _ = split_prompts(tried, HW)
        assert [prompt.class_name for prompt in good.prompts][:2] == ["cup", None]


@pytest.mark.parametrize("name", ["", 5, ["cup"]])
def test_a_class_is_a_text(name):
    with pytest.raises(ValueError, match="prompt 0: class_name wants a text, got"):
        parse_prompts([{"box_xyxy": [1, 2, 30, 20], "class_name": name}])


def test_mask_input_does_not_travel():
    prompts = PromptSet((Prompt(mask_input=np.zeros((1, 8, 8), np.float32)),))
    with pytest.raises(ValueError, match="prompt 0: mask_input cannot be written"):
        prompts_to_plain(prompts)


EDGES = st.sampled_from([-3.0, -0.5, 0.0, 0.25, 1.0, 20.0, 59.0, 60.0, 60.5, 80.0, 90.0, NAN, INF])


@given(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), min_size=1, max_size=4))
def test_boxes_checked_all_at_once_are_those_checked_one_by_one(boxes):
    at_once = PromptSet.from_boxes(np.array(boxes, np.float32))
    # Points that are no points: the same prompts, and each is looked at by itself.
    no_points = {"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0)}
    one_by_one = PromptSet(tuple(Prompt(box.box_xyxy, **no_points) for box in at_once.prompts))
    (good, bad), (wanted, wanted_bad) = (
        split_prompts(prompts, HW, warn=False) for prompts in (at_once, one_by_one)
    )
    assert bad == wanted_bad
    assert [p.box_xyxy.tolist() for p in good.prompts] == [
        p.box_xyxy.tolist() for p in wanted.prompts
    ]


def test_checked_boxes_are_no_longer_those_of_the_caller():
    boxes = np.array([[1, 2, 30, 40]], np.float32)
    checked = check_prompts(PromptSet.from_boxes(boxes), HW)
    boxes[:] = 0
    assert checked.prompts[0].box_xyxy.tolist() == [1, 2, 30, 40]


def test_one_mapping_is_told_to_be_a_list():
    with pytest.raises(TypeError, match=r"got dict\. For one prompt give a list of one mapping"):
        to_prompt_set({"box_xyxy": [1, 2, 3, 4]})

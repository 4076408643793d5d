"""What is cut out, turned or scaled comes back where it was."""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_blocks.masks.rle import mask_to_rle, rle_crop, rle_to_mask
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.masks.windows import (
    boxes_to_parent,
    cut,
    detections_to_parent,
    has_place,
    join,
    part_name,
    points_to_parent,
    rle_to_parent,
    scale,
    turn,
)
from sam2_blocks.values import Image

HW = (30, 40)


def picture(seed=0, hw=HW):
    return Image(np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8), "a.png")


@st.composite
def windows(draw):
    """Windows that touch the picture, and may reach beyond it on any side."""
    x0, y0 = draw(st.integers(-8, HW[1] - 1)), draw(st.integers(-8, HW[0] - 1))
    x1 = draw(st.integers(max(x0, 0) + 1, HW[1] + 8))
    y1 = draw(st.integers(max(y0, 0) + 1, HW[0] + 8))
    return x0, y0, x1, y1


def mask_in(window, seed):
    """A mask of the picture that lies inside the window."""
    x0, y0, x1, y1 = window
    mask = np.zeros(HW, bool)
    inside = (slice(max(y0, 0), y1), slice(max(x0, 0), x1))
    mask[inside] = np.random.default_rng(seed).random(mask[inside].shape) < 0.4
    return mask


def shown(mask, window):
    """The mask as it looks in the window."""
    x0, y0, x1, y1 = window
    padded = np.pad(mask, 8)
    return padded[y0 + 8 : y1 + 8, x0 + 8 : x1 + 8]


@settings(deadline=None, max_examples=60)
@given(windows(), st.integers(0, 99), st.integers(1, 4), st.integers(0, 3))
def test_masks_come_back_exactly_whole_enlargements_and_turns_too(window, seed, factor, turns):
    mask = mask_in(window, seed)
    part = cut(picture(), window, name="part")
    small = turn(part, turns)
    large = scale(small, (small.hw[0] * factor, small.hw[1] * factor), method="nearest")
    seen = np.kron(np.rot90(shown(mask, window), turns), np.ones((factor, factor), bool))
    rle = mask_to_rle(np.ascontiguousarray(seen))
    for origin in (large.parent, large.parent.parent, large.parent.parent.parent):
        rle = rle_to_parent(rle, origin)
    assert np.array_equal(rle_to_mask(rle), mask)
    assert rle.counts.tolist() == mask_to_rle(mask).counts.tolist()


@settings(deadline=None, max_examples=60)
@given(windows(), st.integers(0, 3), st.floats(0.3, 3), st.data())
def test_points_and_boxes_come_back(window, turns, factor, data):
    x0, y0, x1, y1 = window
    low = np.array([data.draw(st.floats(max(x0, 0), x1)), data.draw(st.floats(max(y0, 0), y1))])
    low = np.minimum(low, [HW[1], HW[0]])
    part = turn(cut(picture(), window, name="part"), turns)
    size = tuple(max(1, round(side * factor)) for side in part.hw)
    made = scale(part, size)
    u, v = low - (x0, y0)
    width, height = x1 - x0, y1 - y0
    turned = ((u, v), (v, width - u), (width - u, height - v), (height - v, u))[turns]
    there = np.array(turned) * made.parent.scale_xy
    back = there
    for origin in (made.parent, part.parent, part.parent.parent):
        back = points_to_parent(back, origin)
    assert back == pytest.approx(low, abs=1e-6)
    box = np.array([[*there, *there]])
    for origin in (made.parent, part.parent, part.parent.parent):
        box = boxes_to_parent(box, origin)
    assert box[0] == pytest.approx([*low, *low], abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(4, 12), st.floats(0.5, 3))
def test_other_scaling_moves_an_edge_by_half_a_pixel_at_most(x, width, factor):
    image = picture(hw=(20, 30))
    made = scale(image, (round(20 * factor), round(30 * factor)))
    seen = np.zeros(made.hw, bool)
    scale_x, scale_y = made.parent.scale_xy
    left, right = round(x * scale_x), round((x + width) * scale_x)
    seen[round(4 * scale_y) : round(15 * scale_y), left:right] = True
    columns = np.flatnonzero(rle_to_mask(rle_to_parent(mask_to_rle(seen), made.parent)).any(axis=0))
    rounding = 0.5 / scale_x  # of the drawing itself
    assert abs(columns[0] - x) <= 0.5 + rounding
    assert abs(columns[-1] + 1 - (x + width)) <= 0.5 + rounding


def test_pixels_of_a_window_are_shared_and_filled_beyond_the_picture():
    image = picture()
    inside = cut(image, (3, 4, 13, 9), name="part")
    assert np.shares_memory(inside.pixels, image.pixels)
    assert np.array_equal(inside.pixels, image.pixels[4:9, 3:13])
    assert (inside.parent.id, inside.parent.offset_xy) == ("a.png", (3, 4))
    beyond = cut(image, (-2, -1, 5, 4), name="part", fill=7)
    assert (beyond.pixels[:1] == 7).all()
    assert (beyond.pixels[:, :2] == 7).all()
    assert np.array_equal(beyond.pixels[1:, 2:], image.pixels[:4, :5])
    outside = cut(image, (50, 2, 55, 4), name="part", fill=9)
    assert (outside.pixels == 9).all()
    assert rle_to_parent(mask_to_rle(np.ones((2, 5), bool)), outside.parent).counts.tolist() == [
        1200
    ]


def detections(mask, **more):
    rles = [mask_to_rle(mask)]
    tight = rles and np.array([[3, 2, 6, 4]], np.float32)
    return sv.Detections(tight, mask=MaskStack.from_rles(rles, mask.shape), **more)


def test_a_tight_box_stays_the_tight_box_of_its_mask():
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:7] = True
    part = cut(picture(), (5, 6, 15, 16), name="part")
    moved = detections_to_parent(detections(mask), part.parent)
    assert moved.xyxy.tolist() == [[8, 8, 11, 10]]
    assert moved.mask.shape == (1, *HW)
    large = scale(part, (20, 20), method="nearest")
    twice = detections(np.kron(mask, np.ones((2, 2), bool)))
    twice.xyxy[:] = [6, 4, 13, 9]
    assert detections_to_parent(twice, large.parent).xyxy.tolist() == [[3, 2, 6, 4]]


def test_keypoints_move_too():
    part = cut(picture(), (5, 6, 15, 16), name="part")
    found = sv.Detections(
        np.array([[0, 0, 4, 4]], np.float32),
        data={"keypoints_xy": np.array([[[1, 2], [3, 4]]], np.float32)},
    )
    moved = detections_to_parent(found, part.parent)
    assert moved.data["keypoints_xy"].tolist() == [[[6, 8], [8, 10]]]
    assert moved.xyxy.tolist() == [[5, 6, 9, 10]]


def test_a_mask_of_another_size_is_refused():
    part = cut(picture(), (5, 6, 15, 16), name="part")
    with pytest.raises(ValueError, match="the mask is 40x30 pixels, its picture 10x10"):
        rle_to_parent(mask_to_rle(np.ones(HW, bool)), part.parent)


def test_joining_keeps_rows_in_order_and_columns_that_all_have():
    one = sv.Detections(
        np.zeros((1, 4), np.float32), confidence=np.ones(1), data={"a": np.array(["x"])}
    )
    two = sv.Detections(
        np.ones((1, 4), np.float32), data={"a": np.array(["y"]), "b": np.array([1])}
    )
    joined = join([one, sv.Detections.empty(), two], HW)
    assert joined.xyxy[:, 0].tolist() == [0, 1]
    assert joined.confidence is None
    assert {name: list(values) for name, values in joined.data.items()} == {"a": ["x", "y"]}
    assert len(join([], HW)) == 0
    assert len(join([sv.Detections.empty()], HW)) == 0


def test_a_row_has_a_place_by_its_box_or_its_mask():
    boxes = [[0, 0, 5, 5], [0, 0, 1, 1], [39, 29, 60, 50], [0, 0, 0, 0], [-9, -9, -1, -1]]
    found = sv.Detections(np.array(boxes, np.float32))
    found.xyxy[1, 0] = np.nan
    assert has_place(found, HW).tolist() == [True, False, True, False, False]
    dot = np.zeros(HW, bool)
    dot[0, 0] = True
    found = sv.Detections(np.zeros((1, 4), np.float32), mask=dot[None])
    assert has_place(found, HW).tolist() == [True]


def test_parts_are_named_after_their_picture():
    assert part_name("a/cat.jpg", "crop", 3) == "a/cat-crop3.jpg"
    assert part_name("cat", "tile", 0) == "cat-tile0"
    assert part_name("a.b/cat", "tile", 0) == "a.b/cat-tile0"


def test_cropping_a_mask_and_putting_it_back_is_the_identity():
    mask = mask_in((4, 3, 20, 18), 5)
    part = cut(picture(), (4, 3, 20, 18), name="part")
    rle = rle_crop(mask_to_rle(mask), (4, 3, 19, 17))
    assert rle_to_parent(rle, part.parent).counts.tolist() == mask_to_rle(mask).counts.tolist()

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from sam2_blocks.masks.rle import (
    coco_to_rle,
    mask_to_rle,
    masks_to_prediction,
    rle_area,
    rle_contains,
    rle_crop,
    rle_iou,
    rle_paste,
    rle_to_box_xyxy,
    rle_to_coco,
    rle_to_mask,
    rle_to_spans,
    rles_to_boxes_xyxy,
    spans_to_rle,
)
from sam2_blocks.values import Rle

HW = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = HW.flatmap(lambda hw: arrays(bool, hw))
MASK_PAIRS = HW.flatmap(lambda hw: st.tuples(arrays(bool, hw), arrays(bool, hw)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def coco_encoded(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def test_runs_go_down_the_columns_and_start_with_background():
    assert mask_to_rle(drawn(".#", "##")).counts.tolist() == [1, 3]
    assert mask_to_rle(drawn("#.", "..")).counts.tolist() == [0, 1, 3]
    assert mask_to_rle(drawn("..", "..")).counts.tolist() == [4]
    assert mask_to_rle(drawn("##", "##")).counts.tolist() == [0, 4]


@given(MASKS)
def test_decoding_gives_the_mask_back(mask):
    rle = mask_to_rle(mask)
    assert rle.size == mask.shape
    assert rle.counts.sum() == mask.size
    assert (rle.counts[1:] > 0).all()
    assert rle_area(rle) == mask.sum()
    assert np.array_equal(rle_to_mask(rle), mask)


@given(MASKS)
def test_compressed_counts_equal_those_of_pycocotools(mask):
    coco = rle_to_coco(mask_to_rle(mask))
    assert coco == {"size": list(mask.shape), "counts": coco_encoded(mask)}


@given(MASKS)
def test_every_form_of_a_coco_rle_is_read(mask):
    rle = mask_to_rle(mask)
    compressed = rle_to_coco(rle)
    forms: list[dict[str, Any]] = [
        dict(compressed),
        {"size": mask.shape, "counts": compressed["counts"].encode()},
        {"size": compressed["size"], "counts": rle.counts.tolist()},
    ]
    for form in forms:
        read = coco_to_rle(form)
        assert read.size == mask.shape
        assert np.array_equal(read.counts, rle.counts)


def test_long_runs_survive_compression():
    rle = Rle((30_000, 30_000), np.array([0, 899_999_999, 1]))
    assert np.array_equal(coco_to_rle(rle_to_coco(rle)).counts, rle.counts)


def test_empty_runs_are_merged_away():
    assert coco_to_rle({"size": [2, 3], "counts": [1, 0, 2, 1, 0, 1, 1, 0]}).counts.tolist() == [
        3,
        2,
        1,
    ]
    assert coco_to_rle({"size": [2, 2], "counts": [0, 0, 0, 4, 0]}).counts.tolist() == [0, 4]


@pytest.mark.parametrize("mask", [np.zeros((2, 2), int), np.zeros(4, bool), np.zeros((0, 3), bool)])
def test_only_a_bool_image_with_pixels_is_a_mask(mask):
    with pytest.raises(ValueError, match=r"bool array \(H, W\) with at least one pixel, got"):
        mask_to_rle(mask)


def to_string(differences):
    """The COCO string of these numbers, which are not checked."""
    text = ""
    for number in differences:
        while True:
            digit, number = number & 0x1F, number >> 5
            is_last = number == (-1 if digit & 0x10 else 0)
            text += chr(48 + digit + (0 if is_last else 0x20))
            if is_last:
                break
    return text


# Backgrounds on their way around 64 bits.
WRAPPING = [0, *[2**38, 0] * 10**5, 25]


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ({"counts": [4]}, r"missing: \['size'\]"),
        ({}, r"missing: \['counts', 'size'\]"),
        ({"size": [2], "counts": [4]}, "two positive integers, got"),
        ({"size": [0, 4], "counts": []}, "two positive integers, got"),
        ({"size": [2, float("nan")], "counts": [4]}, "two positive integers, got"),
        ({"size": [2, 2.5], "counts": [5]}, "two positive integers, got"),
        ({"size": "22", "counts": [4]}, "two positive integers, got '22'"),
        ({"size": [2, 2], "counts": [3]}, r"sum to H \* W = 4, got a sum of 3"),
        ({"size": [2, 2], "counts": []}, "a list of integers"),
        ({"size": [2, 2], "counts": [5, -1]}, "from 0 to .* = 4, got one of -1"),
        ({"size": [5, 5], "counts": [2**62] * 4 + [25]}, f"got one of {2**62}"),
        (
            {"size": [5, 5], "counts": np.array([2**63, 2**63, 25], np.uint64)},
            f"got one of {2**63}",
        ),
        ({"size": [5, 5], "counts": [2**64, 25]}, "a list of integers"),
        ({"size": [5, 5], "counts": [26, 2**64 - 1]}, "from 0 to|a list of integers"),
        ({"size": [5, 5], "counts": np.array([255] * 2, np.uint8)}, "got one of 255"),
        ({"size": [5, 5], "counts": [25, 25]}, "got a sum of 50"),
        ({"size": [2**16, 2**16], "counts": [2**32]}, f"at most {2**32 - 1} pixels"),
        ({"size": [2**63, 2**63], "counts": [0]}, "at most"),
        ({"size": [2**40, 2**40], "counts": [2**62] * 4}, "at most"),
        ({"size": [5, 5], "counts": to_string(WRAPPING)}, "from 0 to"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "a list of integers, got list of float64"),
        ({"size": [2, 2], "counts": None}, "a list of integers, got NoneType"),
        ({"size": [2, 2], "counts": ""}, "cut short"),
        ({"size": [2, 2], "counts": "o"}, "cut short"),
        ({"size": [2, 2], "counts": "4é"}, "cut short|sum|from 0 to"),
        ({"size": [2, 2], "counts": " "}, "cut short"),
        ({"size": [5, 6], "counts": "日本"}, "not a valid compressed string"),
        ({"size": [3, 5], "counts": "\ud800"}, "not a valid compressed string"),
        ({"size": [5, 5], "counts": [[1], [2, 3]]}, "a list of integers"),
        ({"size": [True, 25], "counts": [25]}, "two positive integers"),
        ([5, 5], r"a mapping of 'size' and 'counts', got \[5, 5\]"),
        (None, "a mapping of 'size' and 'counts', got None"),
        ({"size": [2, 2], "counts": "o" * 20 + "4"}, "a run is too long"),
    ],
)
def test_a_wrong_coco_rle_is_refused(coco, message):
    with pytest.raises(ValueError, match=message):
        coco_to_rle(coco)


@given(st.binary(max_size=30))
def test_random_bytes_are_read_or_refused(counts):
    try:
        rle = coco_to_rle({"size": [5, 7], "counts": counts})
    except ValueError:
        return
    assert rle.counts.sum() == 35


@given(MASKS)
def test_the_box_of_a_mask_is_tight(mask):
    box = rle_to_box_xyxy(mask_to_rle(mask)).tolist()
    rows, columns = np.nonzero(mask)
    assert box == (
        [columns.min(), rows.min(), columns.max(), rows.max()] if mask.any() else [0, 0, 0, 0]
    )


def test_boxes_of_many_masks_are_rows_even_if_there_are_none():
    one_pixel = mask_to_rle(drawn("..", ".#"))
    assert rles_to_boxes_xyxy([one_pixel, one_pixel]).tolist() == [[1, 1, 1, 1]] * 2
    assert rles_to_boxes_xyxy([]).shape == (0, 4)


@given(MASK_PAIRS)
def test_iou_equals_that_of_the_pixels(masks):
    first, second = masks
    union = (first | second).sum()
    expected = (first & second).sum() / union if union else 1.0
    assert rle_iou(mask_to_rle(first), mask_to_rle(second)) == pytest.approx(expected)


def test_iou_wants_one_size():
    with pytest.raises(ValueError, match=r"must have one size, got \(1, 2\) and \(2, 1\)"):
        rle_iou(mask_to_rle(drawn("##")), mask_to_rle(drawn("#", "#")))


@given(MASKS)
def test_spans_are_the_runs_of_the_columns(mask):
    rle = mask_to_rle(mask)
    spans = rle_to_spans(rle)
    filled = np.zeros_like(mask)
    for x, start, stop in zip(*spans, strict=True):
        assert not filled[start:stop, x].any()
        filled[start:stop, x] = True
    assert np.array_equal(filled, mask)
    assert np.array_equal(spans_to_rle(spans, rle.size).counts, rle.counts)


@given(MASKS, st.data())
def test_a_crop_holds_the_pixels_of_the_box(mask, data):
    height, width = mask.shape
    x_min, x_max = sorted(data.draw(st.integers(0, width - 1)) for _ in range(2))
    y_min, y_max = sorted(data.draw(st.integers(0, height - 1)) for _ in range(2))
    crop = rle_crop(mask_to_rle(mask), [x_min, y_min, x_max, y_max])
    assert np.array_equal(rle_to_mask(crop), mask[y_min : y_max + 1, x_min : x_max + 1])


@pytest.mark.parametrize("box", [[0, 0, 2, 1], [1, 0, 0, 1], [-1, 0, 1, 1], [0, 0, 1, 2]])
def test_a_crop_outside_the_image_is_refused(box):
    with pytest.raises(ValueError, match="not inside the 2x2 image"):
        rle_crop(mask_to_rle(drawn("##", "##")), box)


@given(MASKS, st.tuples(*[st.integers(0, 5)] * 4))
def test_pasting_equals_padding_the_mask(mask, margins):
    left, right, top, bottom = margins
    padded = np.pad(mask, ((top, bottom), (left, right)))
    pasted = rle_paste(mask_to_rle(mask), (left, top), padded.shape)
    assert pasted.counts.tolist() == mask_to_rle(padded).counts.tolist()
    assert pasted.size == padded.shape


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (2, 0), (0, 2)])
def test_pasting_outside_the_image_is_refused(corner):
    with pytest.raises(ValueError, match=r"a 2x2 crop at .* is not inside the 3x3 image"):
        rle_paste(mask_to_rle(drawn("##", "##")), corner, (3, 3))


def test_masks_of_any_origin_become_a_prediction():
    masks = np.zeros((2, 3, 4), bool)
    masks[1, 1, 2] = True
    prediction = masks_to_prediction(masks, [0.5, 0.25])
    assert prediction.image_hw == (3, 4)
    assert [rle_area(rle) for rle in prediction.rles] == [0, 1]
    assert prediction.mask_box_xyxy.tolist() == [[0, 0, 0, 0], [2, 1, 2, 1]]
    assert prediction.iou_prediction.tolist() == [0.5, 0.25]
    assert len(masks_to_prediction(np.zeros((0, 3, 4), bool))) == 0


def test_masks_to_prediction_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"wants bool masks \(N, H, W\), got bool \(3, 4\)"):
        masks_to_prediction(np.zeros((3, 4), bool))
    with pytest.raises(ValueError, match=r"wants iou_prediction of shape \(1,\), got \(2,\)"):
        masks_to_prediction(np.zeros((1, 3, 4), bool), [1, 1])


def test_a_point_is_in_a_mask_where_its_pixel_is():
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    rle = mask_to_rle(mask)
    for y, x in np.ndindex(mask.shape):
        assert rle_contains(rle, (x + 0.9, y)) == mask[y, x]
    assert not any(rle_contains(rle, point) for point in [(-1, 0), (7, 0), (0, 5)])


@pytest.mark.parametrize("counts", [[2**62] * 4 + [25], [-1, 26], [2**63 - 1, 1], [3], [24, 2]])
def test_run_lengths_of_another_sum_are_no_mask(counts):
    with pytest.raises(ValueError, match=r"from 0 to H|must sum to H"):
        rle_to_mask(Rle((5, 5), np.array(counts)))


def test_bytes_that_can_be_changed_are_bytes():
    coco = {"size": [5, 5], "counts": bytearray(b"i0")}
    assert coco_to_rle(coco).counts.tolist() == [25]


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_nowhere_in_a_mask(x):
    mask = Rle((5, 5), np.array([0, 25]))
    assert not rle_contains(mask, [x, 0])
    with pytest.raises(ValueError, match="a box wants finite numbers"):
        rle_crop(mask, [x, 0, 1, 1])

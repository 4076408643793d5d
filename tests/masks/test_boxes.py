from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.boxes import box_iou as iou_of
from sam2_blocks.masks.boxes import box_ious, covered_shares, suppress_boxes
from sam2_blocks.masks.stopping import stopping


@pytest.mark.parametrize(
    ("boxes", "scores", "kept"),
    [
        ([[0, 0, 9, 9], [0, 0, 9, 10], [50, 50, 60, 60]], [0.5, 0.9, 0.7], [1, 2]),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], [0.5, 0.5], [0]),
        # B is dropped for A, so C, which overlaps B alone, stays.
        ([[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]], [0.9, 0.8, 0.7], [0, 2]),
        ([[3, 3, 3, 3], [3, 3, 3, 3]], [0.5, 0.6], [1, 0]),
        ([], [], []),
    ],
)
def test_of_boxes_that_overlap_the_best_stays(boxes, scores, kept):
    table = np.array(boxes, np.int64).reshape(-1, 4)
    found = suppress_boxes(table, np.array(scores, np.float32), iou_threshold=0.6)
    assert found.tolist() == kept


def test_no_box_overlaps_by_more_than_all_of_it():
    table, scores = np.tile([0, 0, 9, 9], (3, 1)), np.float32([0.5, 0.9, 0.7])
    assert suppress_boxes(table, scores, iou_threshold=1.0).tolist() == [1, 2, 0]


def test_suppression_is_that_of_one_box_after_another():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 60, (300, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (300, 2))], axis=1)
    scores = rng.integers(0, 50, 300).astype(np.float32)  # with ties
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if all(box_iou(boxes[index], boxes[other]) <= 0.4 for other in kept):
            kept.append(index)
    assert suppress_boxes(boxes, scores, iou_threshold=0.4).tolist() == kept


def box_iou(a, b):
    width, height = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0)
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - width * height
    return np.float32(width * height) / np.float32(union) if union else 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0),
    ],
)
def test_iou_of_two_boxes(first, second, expected):
    assert iou_of(np.array(first), np.array(second)) == pytest.approx(expected)


def test_a_long_suppression_ends_when_nobody_waits_for_it():
    def gone():
        raise TimeoutError("nobody waits")

    boxes, scores = np.array([[0, 0, 1, 1]] * 3), np.ones(3, np.float32)
    with pytest.raises(TimeoutError, match="nobody waits"), stopping(gone):
        suppress_boxes(boxes, scores, iou_threshold=0.5)


BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [3, 3, 3, 9]], np.float32)


def test_shares_of_boxes_that_others_cover():
    shares = covered_shares(BOXES, np.array([[0, 0, 5, 10], [0, 0, 99, 99]], np.float32))
    assert shares.tolist() == [[0.5, 1], [0, 1], [0, 0]]
    assert covered_shares(BOXES[:0], BOXES).shape == (0, 3)


def test_overlaps_of_each_with_each():
    ious = box_ious(BOXES, BOXES[:2])
    assert ious == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1], [0, 0]]))
    assert box_ious(BOXES, BOXES[:0]).shape == (3, 0)
    assert box_ious(BOXES[2:], BOXES[2:]).tolist() == [[0]]

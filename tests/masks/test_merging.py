from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.masks.merging import (
    average_detections,
    class_names,
    concatenate_detections,
    confidence_of,
    suppress_detections,
)
from sam2_blocks.masks.stack import MaskStack


def detections(*rows, **more):
    """Detections of rows (name, class id, confidence, box)."""
    names, ids, scores, boxes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return sv.Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        class_id=np.array(ids, int),
        confidence=np.array(scores, np.float32),
        data={"class_name": np.array(names, np.str_)},
        **more,
    )


BOX, NEAR, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (20, 20, 30, 30)


def names_of(found):
    return found.data["class_name"].tolist()


def test_rows_come_in_order_and_know_where_from():
    first = detections(("cat", 0, 0.5, BOX))
    second = detections(("dog", 1, 0.9, FAR), ("cat", 0, 0.8, NEAR))
    together = concatenate_detections([first, detections(), second])
    assert names_of(together) == ["cat", "dog", "cat"]
    assert together.class_id.tolist() == [0, 1, 0]
    assert together.data["source"].tolist() == [0, 2, 2]
    assert together.xyxy.tolist() == [list(BOX), list(FAR), list(NEAR)]


@pytest.mark.parametrize("second", [("dog", 0, 0.9, FAR), ("cat", 7, 0.9, FAR)])
def test_numbers_that_contradict_each_other_are_given_anew(second):
    first = detections(("cat", 0, 0.5, BOX))
    together = concatenate_detections([first, detections(second)])
    assert together.class_id.tolist() == ([0, 1] if second[0] == "dog" else [0, 0])


def test_columns_that_only_some_have_are_left_out():
    first, second = detections(("cat", 0, 0.5, BOX)), detections(("cat", 0, 0.5, FAR))
    first.data["colour"] = np.array(["red"])
    assert set(concatenate_detections([first, second]).data) == {"class_name", "source"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_has_no_confidence_or_track_beside_what_has(order):
    tracked = detections(("cat", 0, 0.5, BOX), ("cat", 0, 0.25, NEAR), tracker_id=np.array([3, 7]))
    drawn = detections(("cat", 0, 0.5, FAR))
    drawn.confidence = None
    parts = [(tracked, drawn)[place] for place in order]
    together = concatenate_detections([*parts, detections()])
    rows = [[0.5, 0.25], [1]], [[3, 7], [-1]]
    found = together.confidence, together.tracker_id
    assert [column.dtype for column in found] == [np.float32, np.int64]
    for column, wanted in zip(found, rows, strict=True):
        assert column.tolist() == [value for place in order for value in wanted[place]]


def test_where_nobody_has_a_confidence_none_is_made_up():
    drawn = detections(("cat", 0, 0.5, FAR))
    drawn.confidence = None
    together = concatenate_detections([drawn, drawn])
    assert together.confidence is None
    assert together.tracker_id is None


def test_what_somebody_drew_wins_and_the_others_keep_their_order():
    drawn = detections(("cat", 0, 0.0, (30, 30, 40, 40)))
    drawn.confidence = None
    together = concatenate_detections([detections(*ROWS), drawn, drawn])
    found = suppress_detections(together, iou=0.5)
    assert found.confidence.tolist() == pytest.approx([0.9, 0.4, 0.1, 1])


def test_masks_stay_if_all_have_them():
    mask = np.zeros((40, 40), bool)
    mask[:10, :10] = True
    masked = detections(("cat", 0, 0.5, BOX), mask=MaskStack.of(mask[None]))
    assert concatenate_detections([masked, detections(("cat", 0, 0.5, FAR))]).mask is None
    both = concatenate_detections([masked, detections(), masked])
    assert np.array_equal(np.asarray(both.mask), np.stack([mask, mask]))


def test_nothing_of_nothing_is_nothing():
    assert len(concatenate_detections([detections(), detections()])) == 0
    assert len(suppress_detections(detections(), iou=0.5)) == 0
    empty = concatenate_detections([detections()])
    assert len(average_detections(empty, iou=0.5, count=2)) == 0


ROWS = (("cat", 0, 0.5, BOX), ("cat", 0, 0.9, NEAR), ("dog", 1, 0.4, BOX), ("cat", 0, 0.1, FAR))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"iou": 0.5}, [1, 2, 3]),
        ({"iou": 0.5, "class_agnostic": True}, [1, 3]),
        ({"iou": 0.95}, [0, 1, 2, 3]),
        ({"iou": 1}, [0, 1, 2, 3]),
    ],
)
def test_overlapping_ones_leave_the_most_certain_in_order(options, kept):
    found = detections(*ROWS)
    assert suppress_detections(found, **options).confidence.tolist() == pytest.approx(
        found.confidence[kept].tolist()
    )


def test_averages_weigh_by_confidence_and_by_agreement():
    first = detections(("cat", 0, 0.9, (0, 0, 10, 10)), ("dog", 1, 0.8, FAR))
    second = detections(("cat", 5, 0.3, (0, 0, 10, 14)))
    together = concatenate_detections([first, second])
    found = average_detections(together, iou=0.5, count=2)
    assert names_of(found) == ["cat", "dog"]
    assert found.xyxy[0].tolist() == pytest.approx([0, 0, 10, 11])  # (0.9 * 10 + 0.3 * 14) / 1.2
    assert found.confidence.tolist() == pytest.approx([0.6, 0.4])  # mean 0.6; 0.8 of one in two


def test_a_box_joins_the_group_it_overlaps_most_by_its_mean():
    boxes = [(0, 0, 10, 10), (0, 4, 10, 14), (0, 2, 10, 12)]
    rows = [("cat", 0, score, box) for score, box in zip((0.9, 0.8, 0.7), boxes, strict=True)]
    found = average_detections(concatenate_detections([detections(*rows)]), iou=0.5, count=1)
    assert found.confidence.tolist() == pytest.approx([0.8, 0.8])
    assert sorted(found.xyxy[:, 1].tolist()) == pytest.approx([0.875, 4])


def test_boxes_without_any_confidence_are_averaged_alike():
    rows = [("cat", 0, 0.0, (0, 0, 10, 10)), ("cat", 0, 0.0, (0, 0, 10, 12))]
    found = average_detections(concatenate_detections([detections(*rows)]), iou=0.5, count=1)
    assert found.xyxy.tolist() == [[0, 0, 10, 11]]


def test_masks_cannot_be_averaged():
    masked = detections(("cat", 0, 0.5, BOX), mask=MaskStack.of(np.ones((1, 40, 40), bool)))
    with pytest.raises(ValueError, match="boxes can be averaged, masks cannot"):
        average_detections(concatenate_detections([masked]), iou=0.5, count=1)


def test_what_has_no_name_or_confidence_gets_one():
    bare = sv.Detections(np.array([BOX, FAR], np.float32))
    assert class_names(bare).tolist() == ["object", "object"]
    assert confidence_of(bare).tolist() == [1, 1]
    bare.class_id = np.array([3, 4])
    assert class_names(bare).tolist() == ["class_3", "class_4"]

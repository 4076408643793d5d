from __future__ import annotations

import sys

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import MissingExtraError
from sam2_blocks.hosts.fiftyone import to_fiftyone
from sam2_blocks.hosts.fiftyone.labels import boxes_of, prompts_of, to_label_rows
from sam2_blocks.kinds import sample_detections
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction

HW = (20, 40)


def found(*boxes):
    """Detections whose masks are these boxes but for their first pixel."""
    masks = np.zeros((len(boxes), *HW), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
        mask[y0 : y0 + 1, x0 : x0 + 1] = False
    prompting = sv.Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        class_id=np.arange(len(boxes)),
        confidence=np.full(len(boxes), 0.5, np.float32),
        tracker_id=np.arange(len(boxes)) + 7,
        data={"class_name": np.array([f"class {index}" for index in range(len(boxes))], np.str_)},
    )
    prediction = masks_to_prediction(masks, np.full(len(boxes), 0.75))
    return to_detections(prediction, prompting=prompting)


def test_a_label_is_as_it_was_recorded():
    """Written down from FiftyOne 1.22, whose own test is below."""
    [row] = to_label_rows(found((4, 2, 12, 10)))
    mask = row.pop("mask")
    assert row == {
        "label": "class 0",
        "bounding_box": [0.1, 0.1, pytest.approx(0.2), pytest.approx(0.4)],
        "confidence": 0.5,
        "index": 7,
    }
    assert (mask.dtype, mask.shape, mask.sum()) == (bool, (8, 8), 63)


def test_rows_without_pixels_are_left_out():
    rows = to_label_rows(found((4, 2, 12, 10), (3, 3, 4, 4), (0, 0, 40, 20)))
    assert [row["index"] for row in rows] == [7, 9]


def test_boxes_alone_need_the_size_of_the_picture():
    boxes = sv.Detections(np.array([[-4, 2, 44, 10.5]], np.float32))
    assert to_label_rows(boxes, HW) == [
        {"label": "object", "bounding_box": pytest.approx([0, 0.1, 1, 0.425])}
    ]
    with pytest.raises(ValueError, match="give image_hw"):
        to_label_rows(boxes)
    assert to_label_rows(sv.Detections.empty()) == []


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="40"):
        to_label_rows(found((4, 2, 12, 10)), (40, 20))


def test_fiftyone_shows_the_same_masks(labels):
    detections = found((4, 2, 12, 10), (20, 5, 40, 20), (0, 0, 40, 20), (39, 19, 40, 20))
    made = to_fiftyone(detections)
    assert isinstance(made, labels.Detections)
    masks = detections.mask[[0, 1, 2]]  # of the last one no pixel is left
    for one, mask in zip(made.detections, masks, strict=True):
        shown = one.to_segmentation(frame_size=HW[::-1]).mask
        assert np.array_equal(shown > 0, mask)
    assert [one.label for one in made.detections] == ["class 0", "class 1", "class 2"]
    assert made.detections[0].to_dict()["index"] == 7


def test_boxes_prompt_with_their_labels(labels):
    given = to_fiftyone(found((4, 2, 12, 10), (20, 5, 40, 20)))
    boxes = boxes_of(given, HW)
    assert boxes.xyxy.round(4).tolist() == [[4, 2, 12, 10], [20, 5, 40, 20]]
    assert boxes.data["class_name"].tolist() == ["class 0", "class 1"]
    assert boxes.tracker_id.tolist() == [7, 8]
    assert len(boxes_of(labels.Detections(detections=[]), HW)) == 0
    without = labels.Detections(detections=[labels.Detection(bounding_box=[0, 0, 1, 1])])
    assert boxes_of(without, HW).tracker_id is None


def test_points_prompt_an_object_each(labels):
    nan = float("nan")
    first = labels.Keypoint(label="cup", points=[(0.5, 0.5), (nan, nan), (0.25, 0.1)])
    second = labels.Keypoint(points=[(0.1, 0.1), (0.2, 0.2)], sam_labels=[1, 0])
    nowhere = labels.Keypoint(label="dog", points=[(nan, nan)])
    prompts, names = prompts_of(labels.Keypoints(keypoints=[first, nowhere, second]), HW)
    assert names == ["cup", "object"]
    assert prompts == [
        {"point_coords": [[20, 10], [10, 2]], "point_labels": [1, 1]},
        {"point_coords": [[4, 2], [8, 4]], "point_labels": [1, 0]},
    ]
    wrong = labels.Keypoint(label="cup", points=[(0.1, 0.1)], sam_labels=[1, 0])
    with pytest.raises(ValueError, match="key points of 'cup': 1 points, 2 labels"):
        prompts_of(labels.Keypoints(keypoints=[wrong]), HW)


def test_without_fiftyone_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone.core.labels", None)
    with pytest.raises(MissingExtraError, match="pip install fiftyone"):
        to_fiftyone(sample_detections(), HW)

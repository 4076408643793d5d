from __future__ import annotations

import pytest

from sam2_blocks import rows_to_detections
from tests.blocks.crops import boxes, made


def classify(run_one_step, found, classes, **params):
    inputs = {"detections": found, "classes": classes}
    return run_one_step("detections/classify_from@v1", inputs, params)


def test_the_surest_of_a_crop_names_its_detection(run_one_step):
    found = boxes((0, 0, 5, 5), (5, 5, 9, 9), (1, 1, 2, 2))
    in_crops = [
        rows_to_detections(
            [
                {"box_xyxy": [0, 0, 1, 1], "class_name": "dog", "class_id": 4, "confidence": 0.4},
                {"box_xyxy": [0, 0, 1, 1], "class_name": "cat", "class_id": 3, "confidence": 0.9},
            ]
        ),
        boxes(),
        rows_to_detections([{"box_xyxy": [0, 0, 1, 1], "class_name": "cow", "confidence": 0.1}]),
    ]
    given = made(classify(run_one_step, found, in_crops, min_confidence=0.2))["detections"]
    assert given.data["class_name"].tolist() == ["cat", "object", "object"]
    assert given.class_id.tolist() == [3, 0, 0]
    assert given.confidence.tolist() == pytest.approx([0.9, 1, 1])
    assert found.data["class_name"].tolist() == ["object"] * 3


def test_texts_name_detections(run_one_step):
    found = boxes((0, 0, 5, 5), (5, 5, 9, 9))
    given = made(classify(run_one_step, found, ["b", "a"], class_names=["a", "b"]))["detections"]
    assert given.data["class_name"].tolist() == ["b", "a"]
    assert given.class_id.tolist() == [1, 0]
    wrong = classify(run_one_step, found, ["b", "aa"], class_names=["a", "b"])
    assert "class_names has no 'aa'. Did you mean 'a'?" in wrong.errors[0].message
    few = classify(run_one_step, found, ["b"])
    assert "belong together one by one; got 2 and 1." in few.errors[0].message

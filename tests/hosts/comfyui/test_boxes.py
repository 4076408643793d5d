from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch

from sam2_blocks.hosts.comfyui.boxes import boxes_to_rows

SEG = namedtuple("SEG", ["bbox", "label", "confidence"])


@pytest.mark.parametrize(
    ("boxes", "rows"),
    [
        ([1, 2, 3, 4], [[[1, 2, 3, 4]]]),
        ((1, 2, 3, 4), [[[1, 2, 3, 4]]]),
        (np.array([[1, 2, 3, 4]]), [[[1, 2, 3, 4]]]),
        ([torch.tensor([1, 2, 3, 4])], [[[1, 2, 3, 4]]]),
        ([[[1, 2, 3, 4]], []], [[[1, 2, 3, 4]], []]),
        ([], [[]]),
        ({"x": 1, "y": 2, "width": 2, "height": 2}, [[[1, 2, 3, 4]]]),
        ([[{"x": 1, "y": 2, "width": 2, "height": 2}]], [[[1, 2, 3, 4]]]),
    ],
)
def test_boxes_of_every_form(boxes, rows):
    found = [[row["box_xyxy"] for row in picture] for picture in boxes_to_rows(boxes)]
    assert found == rows


def test_boxes_with_width_and_height():
    assert boxes_to_rows([[1, 2, 3, 4]], box_format="xywh") == [[{"box_xyxy": [1, 2, 4, 6]}]]


def test_boxes_with_labels_and_confidence():
    florence = [{"bboxes": [[1, 2, 3, 4]], "labels": ["cup"]}]
    impact = ((24, 32), [SEG(np.array([1, 2, 3, 4]), "cup", 0.5)])
    core = [[{"x": 1, "y": 2, "width": 2, "height": 2, "score": 0.5}]]
    box = {"box_xyxy": [1, 2, 3, 4]}
    assert boxes_to_rows(florence) == [[{**box, "class_name": "cup"}]]
    assert boxes_to_rows(impact) == [[{**box, "class_name": "cup", "confidence": 0.5}]]
    assert boxes_to_rows(core) == [[{**box, "confidence": 0.5}]]


@pytest.mark.parametrize("boxes", ["text", 3, [[[1, 2, 3, 4]], 3], [{"label": "cup"}]])
def test_what_is_no_box_is_refused(boxes):
    with pytest.raises(ValueError, match="wants "):
        boxes_to_rows(boxes)

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import supervision as sv
from PIL import Image as Pil

from sam2_blocks.formats.columns import (
    detections_to_structs,
    find_column,
    structs_to_detections,
)
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.testing import sample_image

MASKS = np.zeros((2, 6, 8), bool)
MASKS[0, 1:4, 2:7] = True
FOUND = sv.Detections(
    xyxy=np.array([[2, 1, 6, 3], [0, 0, 0, 0]], np.float32),
    mask=MASKS,
    class_id=np.array([3, 5]),
    confidence=np.array([0.5, 0.25], np.float32),
    data={
        "class_name": np.array(["cat", "dog"]),
        "iou_prediction": np.array([0.75, np.nan], np.float32),
    },
)


def test_detections_are_typed_rows_and_come_back():
    column = find_column(["rle_instance_segmentation_prediction"])
    cells = pa.array([column.cell(FOUND), []], type=column.type).to_pylist()
    first, second = cells[0]
    assert first["bbox"] == [2, 1, 5, 3]
    assert (first["area"], second["area"]) == (15, 0)
    assert first["segmentation"]["size"] == [6, 8]
    assert [first[k] for k in ("class_id", "class_name", "confidence")] == [3, "cat", 0.5]
    assert (first["iou_prediction"], second["iou_prediction"]) == (0.75, None)
    assert first["tracker_id"] is None
    back = structs_to_detections(cells[0], (6, 8))
    assert [rle_to_mask(rle).tolist() for rle in to_rles(back)] == MASKS.tolist()
    assert back.class_id.tolist() == [3, 5]
    assert back.data["class_name"].tolist() == ["cat", "dog"]
    assert len(structs_to_detections(cells[1], (6, 8))) == 0


def test_boxes_alone_have_no_area():
    boxes = sv.Detections(xyxy=np.array([[1, 2, 4, 6]], np.float32))
    (row,) = detections_to_structs(boxes)
    assert (row["bbox"], row["area"], row["segmentation"]) == ([1, 2, 3, 4], None, None)
    assert structs_to_detections([row], (6, 8)).xyxy.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        ("string", "x", "x"),
        ("integer", 3, 3),
        ("float", 0.5, 0.5),
        ("boolean", True, True),
        ("list of integer", [1, 2], [1, 2]),
    ],
)
def test_plain_kinds_have_their_types(kind, value, cell):
    column = find_column([kind])
    assert pa.array([column.cell(value), None], type=column.type).to_pylist() == [cell, None]


def test_pictures_are_png_as_datasets_has_them():
    column = find_column(["image"])
    cell = pa.array([column.cell(sample_image())], type=column.type).to_pylist()[0]
    assert (np.asarray(Pil.open(io.BytesIO(cell["bytes"]))) == sample_image().pixels).all()


def test_kinds_without_a_type_have_no_column():
    assert find_column(["dictionary"]) is None
    assert find_column(["list of embedding"]) is None
    assert find_column(["dictionary", "string"]) is not None


def test_what_came_from_a_coco_file_comes_back():
    found = sv.Detections(
        np.array([[1, 1, 3, 3], [2, 2, 5, 5]], np.float32),
        class_id=np.array([4, 4]),
        data={
            "class_name": np.array(["cat", "cat"]),
            "coco_annotation_id": np.array([17, 12]),
            "iscrowd": np.array([0, 1]),
        },
    )
    cell = find_column(["object_detection_prediction"]).cell(found)
    assert [(row["annotation_id"], row["iscrowd"]) for row in cell] == [(17, False), (12, True)]
    back = structs_to_detections(cell, (6, 6))
    assert back.data["coco_annotation_id"].tolist() == [17, 12]
    assert back.data["iscrowd"].tolist() == [0, 1]
    found.data["coco_annotation_id"] = np.array(["x", 2**70], object)
    cell = find_column(["object_detection_prediction"]).cell(found)
    assert [row["annotation_id"] for row in cell] == [None, None]

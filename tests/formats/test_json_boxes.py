from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.json_boxes import load_json, sort_of_json
from sam2_blocks.formats.labelme import detections_to_labelme
from sam2_blocks.formats.rows import detections_to_rows
from sam2_blocks.kinds import SAMPLE_HW, sample_image
from sam2_blocks.testing import sample_detections

HW = (150, 200)
ROBOFLOW = {
    "image": {"width": 200, "height": 150},
    "predictions": [
        {
            "x": 100,
            "y": 50,
            "width": 40,
            "height": 20,
            "class": "cup",
            "class_id": 3,
            "confidence": 0.5,
            "tracker_id": 8,
        }
    ],
}
ULTRALYTICS = [
    {
        "name": "cup",
        "class": 3,
        "confidence": 0.5,
        "track_id": 8,
        "box": {"x1": 80, "y1": 40, "x2": 120, "y2": 60},
    }
]


def load(data, tmp_path, **options):
    (tmp_path / "a.json").write_text(json.dumps(data))
    return load_json(tmp_path / "a.json", options.pop("hw", HW), **options)


@pytest.mark.parametrize(
    "data",
    [
        ROBOFLOW,
        ROBOFLOW["predictions"],
        [{"predictions": ROBOFLOW}],
        ULTRALYTICS,
        {"images": [{"shape": [150, 200], "results": ULTRALYTICS}]},
    ],
)
def test_answers_of_others_are_boxes(data, tmp_path):
    found = load(data, tmp_path)
    assert found.xyxy.tolist() == [[80, 40, 120, 60]]
    assert found.data["class_name"].tolist() == ["cup"]
    assert found.class_id.tolist() == [3]
    assert found.confidence.tolist() == [0.5]
    assert found.tracker_id.tolist() == [8]


def test_oriented_and_normalised_boxes_of_ultralytics(tmp_path):
    corners = {"x1": 20, "y1": 30, "x2": 40, "y2": 10, "x3": 60, "y3": 30, "x4": 40, "y4": 50}
    assert load([{"box": corners}], tmp_path).xyxy.tolist() == [[20, 10, 60, 50]]
    shares = [{"name": "cup", "box": {"x1": 0.25, "y1": 0.2, "x2": 0.5, "y2": 1}}]
    with pytest.warns(FileWarning, match="taken for shares of the picture"):
        assert load(shares, tmp_path).xyxy.tolist() == [[50, 30, 100, 150]]


def shape(label, points, kind="polygon", group=None):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def test_labelme_shapes_are_boxes_and_groups_one_object(tmp_path):
    shapes = [
        shape("cat", [[10, 10], [30, 10], [20, 40]]),
        shape("dog", [[50, 60], [20, 30]], "rectangle"),
        shape("ball", [[50, 50], [53, 54]], "circle"),
        shape("cat", [[1, 1], [2, 1], [2, 2]], group=1),
        shape("cat", [[5, 5], [7, 5], [7, 9]], group=1),
        shape("eye", [[3, 3]], "point"),
    ]
    data = {"shapes": shapes, "imageWidth": 200, "imageHeight": 150}
    with pytest.warns(FileWarning, match="left out 1 points and lines"):
        found = load(data, tmp_path)
    assert found.xyxy.tolist() == [
        [10, 10, 30, 40],
        [20, 30, 50, 60],
        [45, 45, 55, 55],
        [1, 1, 7, 9],
    ]
    assert found.class_id.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("kind", ["polygon", "mask", "rectangle"])
def test_what_we_write_for_labelme_has_the_same_boxes(kind, tmp_path):
    image = sample_image()
    text = detections_to_labelme(sample_detections(), image, folder=tmp_path, shape=kind)
    found = load(json.loads(text), tmp_path, hw=SAMPLE_HW)
    within_px = 0.56 if kind == "polygon" else 0  # corners lie inside border pixels
    assert found.xyxy == pytest.approx(
        np.array([[2, 3, 12, 15], [14, 5, 30, 20]], np.float32), abs=within_px
    )


def test_our_own_files_are_read_and_named(tmp_path):
    rows = {"detections": detections_to_rows(sample_detections())}
    assert load(rows, tmp_path).data["class_name"].tolist() == ["face", "object"]
    with pytest.raises(ValueError, match=r"a\.json: row 0: wants box_xyxy"):
        load({"detections": [[1]]}, tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shapes": [], "imageWidth": 150, "imageHeight": 200}, "EXIF"),
        ({"shapes": [shape("a", [])]}, "entry 0 is wrong"),
        ([{"x": 1, "y": 2, "width": 3, "height": None}], "entry 0 is wrong"),
        ({"predictions": [{"class": "cat", "confidence": 1}]}, "entry 0 is wrong: there is no 'x'"),
        ([{"box": {"x1": 9}}], "entry 0 is wrong"),
        ({"foo": 1}, "form that is read: our own rows"),
        (3, "form that is read"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(data, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load(data, tmp_path)
    assert "a.json: " in str(caught.value)


def test_a_wrong_entry_may_be_left_out(tmp_path):
    rows = [*ROBOFLOW["predictions"], {"x": 1, "y": 2, "width": 3, "height": "high"}]
    with pytest.warns(FileWarning, match="left out 1 entries that are wrong: entry 1"):
        assert len(load(rows, tmp_path, skip_wrong=True)) == 1


def test_forms_are_told_apart():
    assert sort_of_json([]) == "json"
    assert sort_of_json({"images": [], "annotations": []}) == "coco"
    assert sort_of_json([{"image_id": 1, "bbox": [1, 2, 3, 4]}]) == "coco_results"

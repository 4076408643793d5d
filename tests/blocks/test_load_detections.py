from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_blocks import read_image
from sam2_blocks.testing import sample_image
from tests.conftest import PICTURES, ROOT


@pytest.fixture
def picture(tmp_path):
    target = tmp_path / "coffee.jpg"
    target.write_bytes((PICTURES / "coffee.jpg").read_bytes())
    return read_image(target)


@pytest.fixture
def load(run_one_step, picture):
    def run(**params):
        return run_one_step("detections/load@v1", {"image": picture}, params)

    return run


def test_json_beside_the_picture_is_loaded(load, tmp_path):
    (tmp_path / "coffee.json").write_bytes((PICTURES / "coffee.json").read_bytes())
    found = load().outputs["detections"]
    assert found.data["class_name"].tolist() == ["saucer", "cup", "coffee", "spoon"]
    assert found.xyxy[1].tolist() == [172, 16, 411, 246]


def test_coco_is_recognised_and_boxes_are_corners(load):
    found = load(path=str(ROOT / "examples" / "coco" / "boxes.json")).outputs["detections"]
    assert found.data["class_name"].tolist() == ["cup", "spoon"]
    assert found.xyxy[0].tolist() == [172, 16, 411, 246]


def test_yolo_lines_are_boxes_and_outlines(load, tmp_path):
    lines = "1 0.5 0.5 0.2 0.5\n\n0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n"
    (tmp_path / "coffee.txt").write_text(lines)
    found = load(path="{dir}/{stem}.txt", classes=["cup", "spoon"]).outputs["detections"]
    assert found.data["class_name"].tolist() == ["spoon", "cup"]
    assert np.allclose(found.xyxy[0], [240, 100, 360, 300])
    assert np.allclose(found.xyxy[1], [60, 40, 180, 160])
    assert found.confidence is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coffee.json", None, "no such file beside the picture. Set 'path', or 'missing: empty'"),
        ("coffee.json", "{", "not JSON"),
        (
            "coffee.json",
            '{"annotations": []}',
            "not COCO, wants images, annotations and categories",
        ),
        ("coffee.json", '{"detections": [[1, 2]]}', "row 0: wants box_xyxy"),
        ("coffee.json", '{"detections": [[1, 2]]}', "coffee.json: row 0"),
        ("coffee.txt", "0 0.5 0.5", "line 1: wants a class and 4 numbers of a box, or 6 and more"),
        ("coffee.txt", "0 .5 .5 .4 .4 3", "line 1: wants shares of the picture, 0 to 1"),
        ("coffee.txt", "0 .5 .5 .4 .4 .9 3", "line 1: wants shares of the picture, 0 to 1"),
        ("coffee.txt", "0 172 16 239 230", "are these pixels, or a tracker's id?"),
        ("coffee.txt", "1e30 .5 .5 .4 .4", "line 1: "),
        ("coffee.txt", "0 .5 .5 .4 .4\n0 .5 .5 .4 .4 .9", "coffee.txt: row 1 has a confidence"),
        ("coffee.txt", "cup 0.5 0.5 1 1", "line 1: could not convert string to float"),
        ("coffee.txt", "inf 0.5 0.5 1 1", "line 1: wants a whole class number"),
        ("coffee.txt", "0.7 0.5 0.5 1 1", "line 1: wants a whole class number"),
    ],
)
def test_a_wrong_file_is_explained(load, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    [error] = load(path=f"{{dir}}/{name}").errors
    assert message in error.message


def test_a_file_that_is_not_utf_8_is_named(load, tmp_path):
    (tmp_path / "coffee.txt").write_bytes(b"\xff\xfe0 .5")
    [error] = load(path="{dir}/coffee.txt").errors
    assert "coffee.txt: is not UTF-8 text" in error.message


@pytest.mark.parametrize(
    ("line", "confidence"),
    [
        ("0 .5 .5 .2 .2 .75", [0.75]),
        ("0 .4 .4 .6 .4 .6 .6", None),
        ("0 .4 .4 .6 .4 .6 .6 .75", [0.75]),
    ],
)
def test_yolo_text_has_a_confidence_or_none(load, tmp_path, line, confidence):
    (tmp_path / "coffee.TXT").write_text(f"\ufeff{line}\n", encoding="utf-8")
    found = load(path="{dir}/coffee.TXT").outputs["detections"]
    assert np.allclose(found.xyxy, [[240, 160, 360, 240]], atol=1e-3)
    assert (None if found.confidence is None else found.confidence.tolist()) == confidence


@pytest.mark.parametrize("key", ["file_name", "id"])
def test_a_coco_file_that_lists_an_image_twice_is_refused(load, tmp_path, key):
    data = json.loads((ROOT / "examples" / "coco" / "boxes.json").read_text())
    data["images"][1][key] = data["images"][0][key]
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    [error] = load(path="{dir}/boxes.json").errors
    assert f"lists two images with {key} {data['images'][0][key]!r}" in error.message


def test_a_coco_file_of_another_size_is_refused(load, tmp_path):
    data = json.loads((ROOT / "examples" / "coco" / "boxes.json").read_text())
    data["images"][0]["width"] = 10
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    [error] = load(path="{dir}/boxes.json").errors
    assert "says 'coffee.jpg' is 10x400 pixels, the picture is 600x400" in error.message


def test_a_picture_that_coco_does_not_list_is_refused(run_one_step):
    path = str(ROOT / "examples" / "coco" / "boxes.json")
    result = run_one_step("detections/load@v1", {"image": sample_image("x.png")}, {"path": path})
    assert "lists no picture 'x.png'" in result.errors[0].message


def test_a_missing_file_may_mean_no_boxes(load):
    assert len(load(missing="empty").outputs["detections"]) == 0


def test_a_wrong_placeholder_is_explained(load):
    [error] = load(path="{folder}/x.json").errors
    assert "path '{folder}/x.json' has a wrong placeholder: 'folder'" in error.message

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import Item, Runner, read_image
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import FileWarning
from sam2_blocks.formats import coco_boxes
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Image
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
        ("coffee.txt", "0 .5 .5 .4 .4 2.5", "line 1: wants shares of the picture, 0 to 1"),
        ("coffee.json", '[{"top": 1}]', "Forms that are read: our own rows (box_xyxy), COCO"),
        ("coffee.json", '{"top": 1}', "holds no boxes in a form that is read: our own rows"),
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
    [error] = load(path="{folders}/x.json").errors
    assert "path '{folders}/x.json' has a wrong placeholder: 'folders'" in error.message


@pytest.fixture
def load_all(plugins, export_pipeline_of_load):
    """Load the boxes of several pictures in one run: their results."""

    def run(pictures, **params):
        pipeline = export_pipeline_of_load(params)
        items = [Item(image.id, {"image": image}) for image in pictures]
        with Runner(pipeline, plugins, resources=Resources({})) as runner:
            return list(runner.run(items))

    return run


@pytest.fixture
def export_pipeline_of_load(plugins):
    def make(params):
        step = {"use": "detections/load@v1", "with": {"image": "$inputs.image", **params}}
        return plugins.load_pipeline(
            {
                "pipeline_version": 1,
                "inputs": {"image": {"kind": "image"}},
                "steps": {"load": step},
                "outputs": {"detections": "$steps.load.detections"},
            }
        )

    return make


def pictures(count, hw=(150, 200)):
    return [Image(np.zeros((*hw, 3), np.uint8), f"p{number}.jpg") for number in range(count)]


def write_coco(path, annotations, count=3):
    images = [
        {"id": number, "file_name": f"images\\p{number}.jpg", "width": "200", "height": "150"}
        for number in range(count)
    ]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "cup"}]}
    path.write_text(json.dumps(coco))
    return path


def test_one_bad_annotation_fails_its_picture_alone(load_all, tmp_path):
    rows = [
        {"id": number, "image_id": str(number), "category_id": "5", "bbox": [1, 2, 3, 4]}
        for number in range(3)
    ]
    rows[1] = {"id": 1, "image_id": 1, "category_id": 6, "bbox": [1, 2, 3, 4]}
    path = write_coco(tmp_path / "boxes.json", rows)
    first, second, third = load_all(pictures(3), path=str(path))
    assert first.outputs["detections"].xyxy.tolist() == [[1, 2, 4, 6]]
    assert third.outputs["detections"].class_id.tolist() == [5]
    assert "annotation 1 is wrong: category 6 is not listed" in second.errors[0].message
    with pytest.warns(FileWarning, match="left out 1 wrong annotations of 'images"):
        results = load_all(pictures(3), path=str(path), on_bad_entry="skip")
    assert [len(result.outputs["detections"]) for result in results] == [1, 0, 1]


@pytest.mark.parametrize("text", ["{", '{"annotations": []}', None])
def test_a_file_for_all_pictures_is_read_once(load_all, tmp_path, monkeypatch, text):
    read = []
    path = tmp_path / "boxes.json"
    if text is None:
        write_coco(path, [])
    else:
        path.write_text(text)
    original = coco_boxes.read_json
    monkeypatch.setattr(
        "sam2_blocks.blocks.load_detections.read_json",
        lambda path: (read.append(path), original(path))[1],
    )
    results = load_all(pictures(3), path=str(path))
    assert len(read) == 1
    assert [bool(result.errors) for result in results] == [text is not None] * 3


def test_classes_without_ids_have_one_number_in_all_pictures(load_all, tmp_path):
    for number, names in enumerate((["cat", "dog"], ["dog"], ["bird", "cat"])):
        rows = [{"box_xyxy": [1, 2, 3, 4], "class_name": name} for name in names]
        (tmp_path / f"p{number}.json").write_text(json.dumps(rows))
    results = load_all(pictures(3), path=f"{tmp_path}/{{stem}}.json")
    ids = [result.outputs["detections"].class_id.tolist() for result in results]
    assert ids == [[0, 1], [1], [2, 0]]


def test_the_folder_of_a_picture_names_that_of_its_labels(load_all, tmp_path):
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "p0.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("names: [cup]\n")
    image = Image(np.zeros((150, 200, 3), np.uint8), "train/p0.jpg")
    [result] = load_all([image], path=f"{tmp_path}/labels/{{folder}}/{{stem}}.txt")
    found = result.outputs["detections"]
    assert found.data["class_name"].tolist() == ["cup"]
    assert found.xyxy.tolist() == [[50, 37.5, 150, 112.5]]


def test_boxes_of_the_stored_picture_are_turned(run_one_step, tmp_path):
    exif = Pil.Exif()
    exif[0x0112] = 6  # the camera was turned: stored 60x40, seen 40x60
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[5:15, 20:50] = 255
    Pil.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 5, 30, 10]}
    rows = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    coco = {"images": rows, "annotations": [box], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "a.json").write_text(json.dumps(coco))
    [error] = run_one_step("detections/load@v1", {"image": image}).errors
    assert "says 'a.png' is 60x40 pixels, the picture is 40x60, upright as its EXIF" in (
        error.message
    )
    result = run_one_step("detections/load@v1", {"image": image}, {"boxes_frame": "stored"})
    [(x0, y0, x1, y1)] = result.outputs["detections"].xyxy.astype(int)
    assert image.pixels[y0:y1, x0:x1].all()
    assert (image.pixels > 0).sum() == (y1 - y0) * (x1 - x0) * 3


def test_results_take_names_from_the_file_that_they_are_of(load_all, tmp_path):
    reference = write_coco(tmp_path / "truth.json", [])
    rows = [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    first, second = load_all(
        pictures(2), path=str(tmp_path / "found.json"), reference=str(reference)
    )
    assert len(first.outputs["detections"]) == 0
    assert second.outputs["detections"].data["class_name"].tolist() == ["cup"]

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.coco_boxes import CocoBoxes, check_size
from sam2_blocks.testing import sample_image

CATEGORIES = [{"id": 3, "name": "cup", "supercategory": "dishes"}, {"id": "x", "name": "odd"}]


@pytest.fixture
def coco_of(tmp_path):
    def make(*names, annotations=(), categories=CATEGORIES):
        images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        data = {"images": images, "annotations": list(annotations), "categories": categories}
        (tmp_path / "boxes.json").write_text(json.dumps(data))
        return CocoBoxes(tmp_path / "boxes.json")

    return make


def annotation(**fields):
    return {"id": 7, "image_id": 0, "category_id": 3, "bbox": [1, 2, 3, 4], **fields}


def test_a_name_that_fits_two_pictures_is_refused(coco_of):
    coco = coco_of("a.png")
    coco.load(sample_image("a.png"))
    with pytest.raises(ValueError, match=r"both 'a\.png' and 'x/a\.png' end in that name"):
        coco.load(sample_image("x/a.png"))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 4, 2, 4, 6, 1, 6]],
        [[1, 2, 4, 2, 4, 4], [1, 4, 4, 4, 4, 6]],
        [[[1, 2], [4, 2], [4, 6]]],
        [[], [1, 2, 4, 2, 4, 6]],
        {"size": ["24", "32"], "counts": [26, 4, 20, 4, 20, 4, 690]},
        {"size": [24, 32], "counts": [26, 4, 20, 4, 20, 4, 690]},
        "compressed",
    ],
)
@pytest.mark.parametrize("bbox", [None, [], "absent"])
def test_a_missing_box_is_that_of_the_segmentation(coco_of, segmentation, bbox):
    if segmentation == "compressed":
        mask = np.zeros((24, 32), np.uint8, order="F")
        mask[2:6, 1:4] = 1
        coded = coco_mask.encode(mask)
        segmentation = {**coded, "counts": coded["counts"].decode()}
    row = annotation(bbox=bbox, segmentation=segmentation)
    if bbox == "absent":
        del row["bbox"]
    found = coco_of("a.png", annotations=[row]).load(sample_image("a.png"))
    assert found.xyxy.tolist() == [[1, 2, 4, 6]]


def test_numbers_may_be_texts(coco_of):
    row = annotation(image_id="0", category_id="3", bbox=["1", "2", "3", "4"], score="0.5")
    found = coco_of("a.png", annotations=[row]).load(sample_image("a.png"))
    assert found.xyxy.tolist() == [[1, 2, 4, 6]]
    assert found.confidence.tolist() == [0.5]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"category_id": 4}, "annotation 7 is wrong: category 4 is not listed"),
        ({"bbox": None}, "annotation 7 is wrong: wants a bbox or a segmentation, got neither"),
        ({"bbox": [1, 2]}, "annotation 7 is wrong: a bbox wants x, y, width, height, got 2"),
        ({"bbox": [1, 2, 3, 4, 5]}, "annotation 7 is wrong: a bbox wants .* got 5 numbers"),
        ({"bbox": [9, 9, -3, 4]}, "annotation 7 is wrong: a bbox wants .* got a negative size"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 7 is wrong: nan is not finite"),
        ({"bbox": None, "segmentation": [[]]}, "annotation 7 is wrong"),
        ({"bbox": None, "segmentation": [[1, 2, 3]]}, "wants polygons of x and y in turn, got 3"),
        ({"bbox": None, "segmentation": {"counts": [3]}}, "annotation 7 is wrong: there is no"),
        ({"bbox": None, "segmentation": {"size": [4, 5], "counts": [3]}}, "wrong: .*must sum to"),
        ({"bbox": None, "segmentation": {"size": [4, 5], "counts": [20]}}, "mask has no pixels"),
    ],
)
def test_a_wrong_annotation_fails_its_picture_alone(coco_of, fields, message):
    rows = [annotation(**fields), annotation(id=8, image_id=1)]
    coco = coco_of("a.png", "b.png", annotations=rows)
    with pytest.raises(ValueError, match=message):
        coco.load(sample_image("a.png"))
    assert len(coco.load(sample_image("b.png"))) == 1
    with pytest.warns(FileWarning, match="left out 1 wrong annotations of 'a.png'"):
        assert len(coco.load(sample_image("a.png"), skip_wrong=True)) == 0


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_what_is_no_list_is_said(tmp_path, name):
    data = {"images": [], "annotations": [], "categories": [], name: {"1": annotation()}}
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"not COCO.*{name} is a dict, not a list"):
        CocoBoxes(tmp_path / "a.json")


def test_a_picture_may_be_listed_twice_in_the_same_words(tmp_path):
    row = {"id": 0, "file_name": "a.png"}
    data = {"images": [row, row], "annotations": [annotation()], "categories": CATEGORIES}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert len(CocoBoxes(tmp_path / "a.json").load(sample_image("a.png"))) == 1


def test_a_category_without_name_is_none(coco_of):
    coco = coco_of("a.png", annotations=[annotation()], categories=[{"id": 3, "name": None}])
    with pytest.raises(ValueError, match="category 3 is not listed"):
        coco.load(sample_image("a.png"))


def test_entries_of_no_picture_are_counted(coco_of):
    rows = [annotation(), annotation(image_id=9), annotation(image_id=None), 3]
    with pytest.warns(FileWarning, match="left out 3 annotations of pictures that are not listed"):
        coco = coco_of("a.png", annotations=rows)
    assert len(coco.load(sample_image("a.png"))) == 1


def test_ids_and_categories_ride_along(coco_of):
    rows = [annotation(), annotation(id=9, category_id="x")]
    found = coco_of("a.png", annotations=rows).load(sample_image("a.png"))
    assert found.metadata["coco"] == {"image_id": 0, "categories": CATEGORIES}
    assert found.data["coco_annotation_id"].tolist() == [7, 9]
    assert found.class_id.tolist() == [3, 4]
    assert "iscrowd" not in found.data


def test_annotations_without_ids_have_no_column_of_them(coco_of):
    row = annotation()
    del row["id"]
    found = coco_of("a.png", annotations=[row]).load(sample_image("a.png"))
    assert "coco_annotation_id" not in found.data


@pytest.mark.parametrize("crowd", [1, "1", True])
def test_crowds_are_left_out_or_kept_as_such(coco_of, crowd):
    rows = [annotation(), annotation(id=8, iscrowd=crowd)]
    coco = coco_of("a.png", annotations=rows)
    assert coco.load(sample_image("a.png")).data["coco_annotation_id"].tolist() == [7]
    assert coco.load(sample_image("a.png"), crowds=True).data["iscrowd"].tolist() == [0, 1]


def test_swapped_sides_are_a_matter_of_exif():
    check_size("x says it", (0, 0), (3, 4))
    check_size("x says it", (3, 4), (3, 4))
    with pytest.raises(ValueError, match=r"x says it is 5x4 pixels, the picture is 4x3$"):
        check_size("x says it", (4, 5), (3, 4))
    with pytest.raises(ValueError, match=r"EXIF orientation says.*'boxes_frame: stored'"):
        check_size("x says it", (4, 3), (3, 4))

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.coco_boxes import CocoBoxes
from sam2_blocks.formats.coco_results import CocoResults
from sam2_blocks.testing import sample_image


def result(image_id, **fields):
    return {"image_id": image_id, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, **fields}


def results(*rows, **options):
    return CocoResults(Path("found.json"), list(rows), **options)


@pytest.mark.parametrize("image_id", [139, "139", "000000000139", "a/000000000139.jpg"])
def test_a_picture_is_found_by_its_number_or_name(image_id):
    found = results(result(image_id)).load(sample_image("000000000139.jpg"), classes=["a", "cup"])
    assert found.xyxy.tolist() == [[1, 2, 4, 6]]
    assert found.data["class_name"].tolist() == ["cup"]


def test_a_category_without_a_name_is_called_by_its_number():
    found = results(result("a", file_name="a.jpg")).load(sample_image("a.jpg"))
    assert found.data["class_name"].tolist() == ["class_1"]


def test_a_picture_without_results_is_no_error_if_the_annotation_file_lists_it(tmp_path):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    data = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "truth.json").write_text(json.dumps(data))
    found = results(result(8), reference=CocoBoxes(tmp_path / "truth.json"))
    assert len(found.load(sample_image("a.jpg"))) == 0
    assert found.load(sample_image("b.jpg")).data["class_name"].tolist() == ["cup"]
    with pytest.raises(ValueError, match=r"found\.json: lists no picture 'c\.jpg'"):
        results(result(8)).load(sample_image("c.jpg"))


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="not COCO results"):
        results({"bbox": [1, 2, 3, 4]})
    with pytest.warns(FileWarning, match="left out 1 entries without image_id"):
        rows = results(result(1), {}, result(1, bbox=[1]))
    with pytest.raises(ValueError, match=r"a result of '1\.jpg' is wrong"):
        rows.load(sample_image("1.jpg"))
    with pytest.warns(FileWarning, match="left out 1 results"):
        assert len(rows.load(sample_image("1.jpg"), skip_wrong=True)) == 1

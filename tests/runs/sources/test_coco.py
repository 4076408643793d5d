from __future__ import annotations

import json

import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.runs.sources.coco import CocoItems, open_coco

COCO = {
    "images": [
        {"id": 7, "file_name": "in/a.png", "width": 8, "height": 6},
        {"id": 9, "file_name": "in/b.png", "width": 9, "height": 6},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 4, 4]},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [2, 2, 4, 4]},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}


@pytest.fixture
def file(tmp_path, picture):
    (tmp_path / "in").mkdir()
    for width, name in enumerate(("a.png", "b.png"), start=8):
        (tmp_path / "in" / name).write_bytes(picture(width))
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    return path


def test_its_pictures_are_items_with_their_boxes(file, asked, read):
    source = open_coco(str(file), asked)
    first, second = source.items()
    assert [first.id, second.id] == ["in/a.png", "in/b.png"]
    assert source.total == 2
    assert read(first).hw == (6, 8)
    boxes = read(first, "boxes")
    assert boxes.xyxy.tolist() == [[1, 1, 5, 5], [2, 2, 6, 6]]
    assert boxes.data["class_name"].tolist() == ["cat", "dog"]
    assert boxes.class_id.tolist() == [3, 5]
    assert len(read(second, "boxes")) == 0
    assert source.notes == []


def test_boxes_that_are_set_are_not_taken_from_it(file, plugins, asked):
    from dataclasses import replace

    source = CocoItems(file, replace(asked, settings={"boxes": []}))
    assert "boxes" not in next(source.items()).inputs
    assert "no free input for the boxes" in source.notes[0]


def test_what_is_no_coco_is_refused_or_left_to_others(tmp_path, file, asked):
    (tmp_path / "other.json").write_text('{"detections": []}')
    assert open_coco(str(tmp_path / "other.json"), asked) is None
    assert open_coco("photos", asked) is None
    (tmp_path / "torn.json").write_text('{"images": [')
    with pytest.raises(UsageError, match=r"torn\.json: not JSON"):
        open_coco(str(tmp_path / "torn.json"), asked)
    (tmp_path / "none.json").write_text(json.dumps({**COCO, "images": [], "annotations": []}))
    with pytest.raises(UsageError, match="lists no picture"):
        CocoItems(tmp_path / "none.json", asked)

from __future__ import annotations

import json

import pytest

from sam2_blocks.formats.coco import CocoBoxes, _category_ids
from sam2_blocks.testing import sample_image


def coco_of(tmp_path, *names):
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    data = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    return CocoBoxes(tmp_path / "boxes.json")


def test_a_coco_name_may_be_longer_or_shorter_than_the_picture_s(tmp_path):
    coco = coco_of(tmp_path, "train/a.png", "b.png")
    assert len(coco.load(sample_image("a.png"))) == 0
    assert len(coco.load(sample_image("deep/b.png"))) == 0


def test_a_coco_name_that_fits_two_pictures_is_refused(tmp_path):
    coco = coco_of(tmp_path, "a.png")
    coco.load(sample_image("a.png"))
    with pytest.raises(ValueError, match=r"both 'a\.png' and 'x/a\.png' end in that name"):
        coco.load(sample_image("x/a.png"))
    with pytest.raises(ValueError, match=r"'a\.png' could be any of 'x/a\.png', 'y/a\.png'"):
        coco_of(tmp_path, "x/a.png", "y/a.png").load(sample_image("a.png"))


def test_classes_without_numbers_of_their_own_are_numbered_by_name():
    rows = [{"category": name, "class_id": 0} for name in ("dog", "cat")]
    assert _category_ids(rows) == {"cat": 1, "dog": 2}

from __future__ import annotations

from sam2_blocks.formats.coco import _category_ids


def test_classes_without_numbers_of_their_own_are_numbered_by_name():
    rows = [{"category": name, "class_id": 0} for name in ("dog", "cat")]
    assert _category_ids(rows) == {"cat": 1, "dog": 2}

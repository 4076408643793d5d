"""What several detectors found is gathered and chosen from, masks too."""

from __future__ import annotations

import numpy as np

from sam2_blocks import executors
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.values import Rle


def test_found_objects_are_joined_and_chosen():
    rle = Rle((2, 2), np.array([4]))
    box = np.array([[0, 0, 1, 1]], np.float32)
    one = FoundObjects((2, 2), box, np.array([0.5], np.float32), np.array([3]), ("a",), (rle,))
    two = FoundObjects((2, 2), box + 1, np.array([0.6], np.float32), np.array([4]), ("b",))
    both = FoundObjects.concatenate([one, two])
    assert (len(both), both.class_names, both.rles) == (2, ("a", "b"), None)
    assert FoundObjects.concatenate([one, one]).rles == (rle, rle)
    last = both.select(np.array([1]))
    assert last.class_ids.tolist() == [4]
    assert last.boxes_xyxy.tolist() == [[1, 1, 2, 2]]
    assert one.select(np.array([0, 0])).rles == (rle, rle)


def test_plugins_find_it_beside_the_protocols_that_return_it():
    assert executors.FoundObjects is FoundObjects

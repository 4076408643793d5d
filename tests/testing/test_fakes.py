from __future__ import annotations

import numpy as np

from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.testing import FakeExecutor, sample_image
from sam2_blocks.values import PromptSet


def test_the_fake_executor_fills_boxes_and_squares_around_points():
    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image("a.png")])
    boxes, points = PromptSet.from_boxes([[2, 3, 12, 15]]), PromptSet.from_points([[10, 10]])
    of_box, of_point = executor.segment([(embedding, boxes), (embedding, points)])
    filled = np.zeros(embedding.image_hw, bool)
    filled[3:15, 2:12] = True
    assert np.array_equal(rle_to_mask(of_box.rles[0]), filled)
    assert rle_to_mask(of_point.rles[0]).sum() == 25
    assert executor.embedded == ["a.png"]

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.strategies.automatic import (
    POINTS_PER_BATCH,
    generate_masks,
    point_batches,
)
from sam2_blocks.testing import FakeExecutor, sample_image

SETTINGS = AutomaticSettings(points_per_side=2)


def test_points_are_the_centres_of_equal_cells_row_by_row():
    [points] = point_batches(2, (40, 80))
    assert points.tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]
    assert points.dtype == np.float32


def test_points_come_in_batches():
    sizes = [len(batch) for batch in point_batches(7, (40, 80))]
    assert sizes == [POINTS_PER_BATCH, 49 - POINTS_PER_BATCH]


def test_masks_are_joined_over_batches_and_duplicates_dropped():
    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image()])  # 24 x 32, squares of 5 x 5
    found = generate_masks(executor, embedding, SETTINGS)
    assert found.point_xy.tolist() == [[8, 6], [24, 6], [8, 18], [24, 18]]
    assert found.prediction.mask_box_xyxy[0].tolist() == [6, 4, 10, 8]
    crowded = replace(SETTINGS, points_per_side=32, box_nms_thresh=0.1)
    assert 4 < len(generate_masks(executor, embedding, crowded)) < 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points_per_side": 0}, "points_per_side wants 1 or more, got 0"),
        ({"pred_iou_thresh": 5}, "pred_iou_thresh wants 0 to 1, got 5"),
        ({"box_nms_thresh": -1}, "box_nms_thresh wants 0 to 1, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image()])
    with pytest.raises(ValueError, match=message):
        generate_masks(executor, embedding, AutomaticSettings(**changes))


def test_an_executor_without_it_says_so():
    class Plain:
        spec = FakeExecutor("mine").spec
        embed, segment = FakeExecutor.embed, FakeExecutor.segment

    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image()])
    with pytest.raises(ModelError, match=r"model 'mine' cannot segment without prompts: it has no"):
        generate_masks(Plain(), embedding)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh wants 0 to 1, got nan"),
        ({"stability_score_offset": -1.0}, "stability_score_offset wants 0 or more, got -1"),
        ({"stability_score_offset": float("nan")}, "stability_score_offset wants 0 or more"),
        ({"mask_threshold": float("nan")}, "mask_threshold wants a finite number, got nan"),
        ({"min_mask_region_area": -3}, "min_mask_region_area wants 0 or more, got -3"),
        ({"points_per_side": 0}, "points_per_side wants 1 or more, got 0"),
    ],
)
def test_automatic_settings_have_ranges(settings, message):
    executor = FakeExecutor()
    [embedding] = executor.embed([sample_image()])
    with pytest.raises(ValueError, match=message):
        generate_masks(executor, embedding, AutomaticSettings(**settings))


def test_a_picture_is_embedded_first():
    with pytest.raises(TypeError, match=r"wants the Embedding of a picture, got Image. Encode it"):
        generate_masks(FakeExecutor(), sample_image())

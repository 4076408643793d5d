from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.options import AutomaticSettings, CropSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.crops import crop_places, generate_masks_in_crops
from sam2_blocks.testing import FakeExecutor, sample_image
from sam2_blocks.values import Image

SETTINGS = AutomaticSettings(points_per_side=2)
ONE_LAYER = CropSettings(crop_n_layers=1)


def picture(height: int, width: int) -> Image:
    return Image(np.zeros((height, width, 3), np.uint8), "crops.png")


@pytest.mark.parametrize("hw", [(333, 500), (41, 37), (3, 1), (1, 1)])
@pytest.mark.parametrize("ratio", [0, 512 / 1500, 0.9])
def test_the_crops_of_a_layer_cover_the_picture(hw, ratio):
    crops = CropSettings(crop_n_layers=3, crop_overlap_ratio=ratio)
    covered = np.zeros((4, *hw), bool)
    for crop in crop_places(hw, crops):
        assert 0 <= crop.x_start < crop.x_stop <= hw[1]
        assert 0 <= crop.y_start < crop.y_stop <= hw[0]
        covered[crop.layer, crop.y_start : crop.y_stop, crop.x_start : crop.x_stop] = True
    assert covered.all()


def test_crops_are_those_of_the_official_generator():
    from sam2.utils.amg import generate_crop_boxes

    boxes, layers = generate_crop_boxes((333, 500), 2, 512 / 1500)
    places = list(crop_places((333, 500), CropSettings(crop_n_layers=2)))
    assert [list(crop[:4]) for crop in places] == boxes
    assert [crop.layer for crop in places] == layers


def test_without_layers_the_masks_are_those_of_the_picture():
    executor = FakeExecutor()
    image = sample_image()
    [embedding] = executor.embed([image])
    expected = generate_masks(executor, embedding, SETTINGS)
    found = generate_masks_in_crops(executor, image, SETTINGS, CropSettings())
    assert found.point_xy.tolist() == expected.point_xy.tolist()
    assert [rle.counts.tolist() for rle in found.prediction.rles] == [
        rle.counts.tolist() for rle in expected.prediction.rles
    ]


def test_masks_lie_where_their_points_are_and_come_from_the_smallest_crop():
    """The fake fills the square of 5 x 5 pixels around each point."""
    found = generate_masks_in_crops(FakeExecutor(), picture(200, 300), SETTINGS, ONE_LAYER)
    columns, rows = (46, 138, 162, 254), (33.5, 100.5, 166.5)  # the crops are 184 x 134 pixels
    of_crops = {(x, y) for x in columns for y in rows}  # 100.5 twice: from above and from below
    assert {tuple(point) for point in found.point_xy[:-4].tolist()} == of_crops
    assert len(found) == len(of_crops) + 4
    assert found.point_xy[-4:].tolist() == [[75, 50], [225, 50], [75, 150], [225, 150]]
    for rle, box, (x, y) in zip(
        found.prediction.rles, found.prediction.mask_box_xyxy, found.point_xy, strict=True
    ):
        assert rle.size == (200, 300)
        rows, columns = np.nonzero(rle_to_mask(rle))
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
        assert np.abs([columns.mean() - x, rows.mean() - y]).max() < 1


def test_a_mask_that_its_crop_cuts_off_is_dropped_unless_the_picture_ends_there():
    many = replace(SETTINGS, points_per_side=8, box_nms_thresh=1)
    found = generate_masks_in_crops(FakeExecutor(), picture(200, 300), many, ONE_LAYER)
    of_crops = found.point_xy[:-64]  # the whole picture's come last
    left = next(c for c in crop_places((200, 300), ONE_LAYER) if c.layer == 1)
    inside = of_crops[of_crops[:, 0] < left.x_stop - 40]
    assert (inside[:, 0] < 20).any()  # beside the picture's own edge
    x = np.unique(of_crops[:, 0])
    points_of_left = (np.arange(8) + 0.5) / 8 * left.x_stop
    near_edge = points_of_left[points_of_left > left.x_stop - 18]
    assert len(near_edge)
    assert not np.isin(np.round(near_edge, 3), np.round(x, 3)).any()


def test_duplicates_between_crops_go():
    """Rows of points at y = 100.5 belong to a crop above and one below."""
    every, some = (
        generate_masks_in_crops(
            FakeExecutor(), picture(200, 300), SETTINGS, replace(ONE_LAYER, crop_nms_thresh=limit)
        )
        for limit in (1, 0.7)
    )
    assert (len(every), len(some)) == (20, 16)


def test_settings_that_leave_no_points_are_refused():
    crops = CropSettings(crop_n_layers=2, crop_n_points_downscale_factor=2)
    with pytest.raises(ValueError, match=r"no points are left for the crops of layer 2: 2 points"):
        generate_masks_in_crops(FakeExecutor(), sample_image(), SETTINGS, crops)


def test_an_overlap_of_everything_is_refused():
    with pytest.raises(ValueError, match=r"crop_overlap_ratio must be .* below 1, got 1"):
        list(crop_places((10, 10), CropSettings(crop_overlap_ratio=1)))


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        ({"crop_n_layers": -1}, "crop_n_layers wants 0 to 8, got -1"),
        ({"crop_n_layers": 30}, "crop_n_layers wants 0 to 8, got 30"),
        ({"crop_n_points_downscale_factor": 0}, "downscale_factor wants 1 or more, got 0"),
        ({"crop_n_points_downscale_factor": float("nan")}, "wants 1 or more, got nan"),
        ({"crop_nms_thresh": float("nan")}, "crop_nms_thresh wants 0 to 1, got nan"),
        (
            {"crop_n_layers": 1, "crop_overlap_ratio": float("nan")},
            "and below 1, got nan",
        ),
    ],
)
def test_crop_settings_have_ranges(crops, message):
    with pytest.raises(ValueError, match=message):
        generate_masks_in_crops(FakeExecutor(), sample_image(), crops=CropSettings(**crops))

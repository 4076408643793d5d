from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_blocks import PromptSet, load_executor, read_image
from sam2_blocks.masks.rle import masks_to_prediction, paste_prediction, rle_crop, rle_iou
from sam2_blocks.strategies.tiles import _tile_of, segment_in_tiles
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import Image, Prompt
from tests.conftest import PICTURES

HW = (300, 500)
PICTURE = Image(np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8), "big.png")


class Recording(FakeExecutor):
    """Remembers the sizes of the pictures it embeds."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def embed(self, images):
        self.sizes += [image.hw for image in images]
        return super().embed(images)


def test_masks_lie_in_the_whole_picture_in_the_order_of_the_prompts():
    boxes = PromptSet.from_boxes([[450, 250, 490, 290], [3, 4, 20, 30], [240, 140, 270, 170]])
    executor = Recording()
    found = segment_in_tiles(executor, PICTURE, boxes, tile_px=100)
    [embedding] = executor.embed([PICTURE])
    [whole] = executor.segment([(embedding, boxes)])
    assert found.image_hw == HW
    assert [rle.counts.tolist() for rle in found.rles] == [r.counts.tolist() for r in whole.rles]
    assert np.array_equal(found.mask_box_xyxy, whole.mask_box_xyxy)
    assert found.low_res_logits.shape == (3, 0, 0)


def test_only_tiles_with_prompts_are_encoded_and_prompts_share_them():
    executor = Recording()
    boxes = [[10, 10, 30, 30], [12, 12, 40, 40], [460, 260, 480, 280]]
    segment_in_tiles(executor, PICTURE, PromptSet.from_boxes(boxes), tile_px=100)
    assert executor.sizes == [(100, 100), (100, 100)]


def test_what_no_tile_holds_is_answered_on_the_whole_picture():
    executor = Recording()
    boxes = PromptSet.from_boxes([[10, 10, 200, 30], [10, 10, 20, 20]])
    segment_in_tiles(executor, PICTURE, boxes, tile_px=100)
    assert executor.sizes == [HW, (100, 100)]


def test_an_empty_mask_has_a_box_of_zeros():
    masks = np.zeros((2, 10, 10), bool)
    masks[1, 2:4, 3:7] = True
    pasted = paste_prediction(masks_to_prediction(masks), (50, 60), HW)
    assert pasted.mask_box_xyxy.tolist() == [[0, 0, 0, 0], [53, 62, 56, 63]]


def test_a_picture_smaller_than_a_tile_is_one():
    executor = Recording()
    segment_in_tiles(executor, PICTURE, PromptSet.from_points([[9, 9], [400, 200]]), tile_px=1024)
    assert executor.sizes == [HW]


def test_no_prompts_encode_nothing():
    executor = Recording()
    assert len(segment_in_tiles(executor, PICTURE, PromptSet())) == 0
    assert executor.sizes == []


@given(
    st.tuples(st.integers(0, 499), st.integers(0, 299)),
    st.tuples(st.integers(0, 32), st.integers(0, 32)),
    st.integers(64, 700),
)
def test_a_tile_holds_its_prompt_and_more_around_it(start, size, tile_px):
    (x, y), (width, height) = start, size
    box = np.float32([x, y, min(x + width, 500), min(y + height, 300)])
    tile = _tile_of(Prompt(box), HW, tile_px)
    assert 0 <= tile.x_start <= box[0] <= box[2] <= tile.x_stop <= 500
    assert 0 <= tile.y_start <= box[1] <= box[3] <= tile.y_stop <= 300
    assert tile.x_stop - tile.x_start == min(tile_px, 500)
    margin = (tile_px // 2 - 32) // 2  # what half a tile of overlap leaves, on either side
    assert tile.x_start == 0 or box[0] - tile.x_start >= margin
    assert tile.x_stop == 500 or tile.x_stop - box[2] >= margin


def test_a_mask_of_the_whole_picture_is_no_prompt_for_a_tile():
    prompts = PromptSet((Prompt(mask_input=np.zeros((1, 8, 8), np.float32)),))
    with pytest.raises(ValueError, match="prompt 0: mask_input is for whole pictures"):
        segment_in_tiles(FakeExecutor(), PICTURE, prompts)


def test_a_tile_has_two_pixels_or_more():
    with pytest.raises(ValueError, match="tile_px wants 2 or more, got 1"):
        segment_in_tiles(FakeExecutor(), PICTURE, PromptSet.from_points([[1, 1]]), tile_px=1)


def test_it_is_the_mask_of_the_tile_alone():
    executor = load_executor("nano", device="cpu")
    coffee = read_image(PICTURES / "coffee.jpg")
    box = np.float32([327, 240, 400, 324])  # the spoon
    [found] = segment_in_tiles(executor, coffee, PromptSet.from_boxes([box]), tile_px=200).rles
    tile = _tile_of(Prompt(box), coffee.hw, 200)
    [embedding] = executor.embed([tile.cut(coffee)])
    moved = PromptSet.from_boxes([box - np.tile(np.float32(tile[:2]), 2)])
    [prediction] = executor.segment([(embedding, moved)])
    inside = [tile.x_start, tile.y_start, tile.x_stop - 1, tile.y_stop - 1]
    assert rle_iou(rle_crop(found, inside), prediction.rles[0]) == 1.0

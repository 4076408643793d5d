from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks import read_image
from sam2_blocks.hosts.comfyui.values import (
    images_to_tensor,
    tensor_to_images,
    tensor_to_masks,
)
from sam2_blocks.testing import sample_image
from tests.conftest import PICTURES


def test_a_picture_of_eight_bits_survives():
    image = read_image(PICTURES / "coffee.jpg")
    loaded = torch.from_numpy(np.array(image.pixels).astype(np.float32) / 255.0)[None]
    [back] = tensor_to_images(loaded)  # as LoadImage makes it
    assert np.array_equal(back.pixels, image.pixels)
    assert torch.equal(images_to_tensor([back]), loaded)


def test_alpha_and_what_is_out_of_range_are_cut_off():
    pixels = torch.tensor([[[[1.5, -0.5, float("nan"), 0.3]]]])
    assert tensor_to_images(pixels)[0].pixels.tolist() == [[[255, 0, 0]]]


def test_pictures_of_two_sizes_are_no_batch():
    small = sample_image()
    large = type(small)(np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ValueError, match=r"one size, got \[\(24, 32\), \(50, 60\)\]"):
        images_to_tensor([small, large])


def test_a_mask_may_lack_its_first_axis():
    assert tensor_to_masks(torch.tensor([[0.4, 0.6]])).tolist() == [[[False, True]]]


def test_lists_are_json(node):
    run = node("detections/filter@v1").run
    boxes = [{"bboxes": [[1, 2, 8, 9], [3, 4, 9, 9]], "labels": ["cup", "spoon"]}]
    kept, masks, found = run(detections=boxes, classes='["spoon"]', max_count=None)
    assert found == [[3, 4, 9, 9]]
    assert kept[0].data["class_name"].tolist() == ["spoon"]
    assert not masks.any()
    assert len(run(detections=boxes, classes=" ")[2]) == 2

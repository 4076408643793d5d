from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2.rows import prompts_to_rows, rows_to_tensors
from sam2_blocks.testing import sample_embedding, sample_image
from sam2_blocks.values import Prompt, PromptSet

EMBEDDING = sample_embedding(sample_image())  # 24 x 32
BOX = np.array([0, 6, 16, 24], np.float32)
POINTS, LABELS = np.array([[32, 0]], np.float32), np.array([0], np.int32)
MASK = np.full((1, 4, 4), 2, np.float32)


def rows_of(*prompts):
    return prompts_to_rows([(EMBEDDING, PromptSet(prompts))], image_size=64, low_res_hw=(4, 4))


def test_corners_come_before_points_and_both_are_in_the_encoders_square():
    [row] = rows_of(Prompt(BOX, POINTS, LABELS))
    assert row.coords.tolist() == [[0, 16], [32, 64], [64, 0]]
    assert row.labels.tolist() == [2, 3, 0]
    assert (row.item, row.index) == (0, 0)


def test_rows_know_their_picture_and_their_place_in_its_prompts():
    prompts = PromptSet((Prompt(BOX), Prompt(BOX)))
    items = [(EMBEDDING, PromptSet()), (EMBEDDING, prompts)]
    rows = prompts_to_rows(items, image_size=64, low_res_hw=(4, 4))
    assert [(row.item, row.index) for row in rows] == [(1, 0), (1, 1)]


def test_only_prompts_of_one_shape_are_decoded_together():
    box, both = Prompt(BOX), Prompt(BOX, POINTS, LABELS)
    masked = Prompt(BOX, mask_input=MASK)
    keys = [row.shape_key for row in rows_of(box, both, masked, box)]
    assert keys == [(2, False), (3, False), (2, True), (2, False)]


def test_a_group_becomes_tensors():
    cpu = torch.device("cpu")
    points, masks = rows_to_tensors(rows_of(Prompt(BOX), Prompt(BOX)), cpu)
    assert [tuple(part.shape) for part in points] == [(2, 2, 2), (2, 2)]
    assert masks is None
    points, masks = rows_to_tensors(rows_of(Prompt(mask_input=MASK)), cpu)
    assert points is None
    assert torch.equal(masks, torch.full((1, 1, 4, 4), 2.0))


def test_a_mask_of_another_size_is_refused():
    wrong = Prompt(mask_input=np.zeros((1, 8, 8), np.float32))
    message = r"image 'sample.png': prompt 1: mask_input wants .* \(1, 4, 4\), got \(1, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        rows_of(Prompt(BOX), wrong)

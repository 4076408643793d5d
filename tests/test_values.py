from __future__ import annotations

import numpy as np

from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import sample_embedding, sample_image
from sam2_blocks.values import AutomaticMasks, MaskPrediction, PromptSet


def three_masks():
    masks = np.zeros((3, 4, 5), bool)
    for index in range(3):
        masks[index, index, : index + 1] = True
    return masks_to_prediction(masks)


def areas(prediction):
    return [int(rle.counts[1::2].sum()) for rle in prediction.rles]


def test_an_embedding_knows_its_tensors_and_their_bytes():
    embedding = sample_embedding(sample_image())
    assert list(embedding.tensors) == ["image_embed", "high_res_feats.0", "high_res_feats.1"]
    assert embedding.nbytes == 3 * 4**3 * 4
    assert embedding.image_hw == sample_image().hw == (24, 32)


def test_boxes_and_points_are_a_prompt_each():
    boxes = PromptSet.from_boxes([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert [prompt.box_xyxy.tolist() for prompt in boxes.prompts] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    [click] = PromptSet.from_points([[1, 2]]).prompts
    assert (click.point_coords.tolist(), click.point_labels.tolist()) == ([[1, 2]], [1])
    assert len(PromptSet.from_boxes([])) == len(PromptSet.from_points([])) == 0


def test_masks_are_selected_in_the_order_asked_for():
    chosen = three_masks().select(np.array([2, 0]))
    assert areas(chosen) == [3, 1]
    assert chosen.mask_box_xyxy.tolist() == [[0, 2, 2, 2], [0, 0, 0, 0]]


def test_predictions_of_one_picture_are_joined():
    whole = three_masks()
    parts = [
        whole.select(np.array([0])),
        whole.select(np.array([], int)),
        whole.select(np.array([2])),
    ]
    joined = MaskPrediction.concatenate(parts)
    assert areas(joined) == [1, 3]
    assert len(joined) == len(joined.iou_prediction) == len(joined.low_res_logits) == 2


def test_automatic_masks_keep_points_and_scores_with_their_masks():
    points, scores = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0.1, 0.2, 0.3])
    chosen = AutomaticMasks(three_masks(), points, scores).select(np.array([1]))
    assert (areas(chosen.prediction), len(chosen)) == ([2], 1)
    assert (chosen.point_xy.tolist(), chosen.stability_score.tolist()) == ([[2, 3]], [0.2])

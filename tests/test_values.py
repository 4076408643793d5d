from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import FakeExecutor, sample_embedding, sample_image
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


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 6)), r"shape \(N, 4\), got \(2, 6\).*xyxy, confidence, class: give boxes"),
        (np.zeros((3, 5)), r"got \(3, 5\).*xyxy and a confidence"),
        ([1, 2, 3, 4], r"got \(4,\).*a list of one row"),
        (np.zeros((0, 6)), r"got \(0, 6\)"),
        (np.zeros((1, 2, 2)), r"got \(1, 2, 2\)"),
        (np.zeros((4, 9)), r"got \(4, 9\).*probably swapped: give its transpose"),
        (np.zeros((3, 8)), r"got \(3, 8\).*usually four corners"),
        ([[1, 2, 3, 4], [1, 2, 3]], r"rows of 4 numbers.*row 0 is \[1, 2, 3, 4\], row 1 is \[1,"),
        ([[1, 2, 3, 4], {"box": 1}], r"rows of 4 numbers each, row 0 is .*, row 1 is \{"),
        (np.ones((1, 8, 9), bool), r"got bool \(1, 8, 9\).*give sv.mask_to_xyxy"),
        ([[{"box_xyxy": [1, 2, 3, 4]}]], r"rows of 4 numbers each: .*not 'dict'"),
        ([["a", "b", "c", "d"]], r"rows of 4 numbers each: could not convert string"),
        (np.ones((2, 4), complex), r"wants numbers, got complex128"),
    ],
)
def test_boxes_are_never_reshaped(boxes, message):
    with pytest.raises(ValueError, match=message):
        PromptSet.from_boxes(boxes)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[80, 60, 1], [10, 10, 0]], r"\(N, 2\), got \(2, 3\).*third column is probably the label"),
        ([80, 60], r"got \(2,\).*a list of one row"),
    ],
)
def test_points_are_never_reshaped(points, message):
    with pytest.raises(ValueError, match=message):
        PromptSet.from_points(points)


def test_no_rows_are_no_prompts():
    assert len(PromptSet.from_boxes(np.zeros((0, 4)))) == 0


def test_reprs_are_one_line_of_shapes():
    [embedding] = FakeExecutor().embed([sample_image("a.png")])
    assert repr(embedding) == (
        "Embedding(image_id='a.png', image_hw=(24, 32), image_embed=(1, 4, 4, 4), "
        "spec=fake/cpu/float32)"
    )
    prediction = masks_to_prediction(np.ones((2, 4, 6), bool))
    assert repr(prediction).startswith("MaskPrediction(2 masks, image_hw=(4, 6), low_res_logits=")
    assert "\n" not in repr(prediction)

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.executor.sam2.answer import LOGIT_LIMIT, gather_prediction, segment_chunk
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.rows import prompts_to_rows
from sam2_blocks.masks.rle import rle_to_box_xyxy
from sam2_blocks.options import SegmentOptions
from sam2_blocks.values import PromptSet

BOXES = PromptSet.from_boxes([[10, 20, 300, 400], [50, 60, 500, 300], [1, 2, 30, 40]])


@pytest.fixture
def answers(nano, nano_embedding):
    """``answers(**options)``: three boxes on one picture."""
    size, low_res_hw = nano.model.image_size, nano_embedding.high_res_feats[0].shape[-2:]
    rows = prompts_to_rows([(nano_embedding, BOXES)], image_size=size, low_res_hw=tuple(low_res_hw))

    def answer(*, return_candidates=False, **given):
        options = SegmentOptions(**given)
        decoder = Decoder(nano.model)
        return segment_chunk(decoder, rows, options, return_candidates=return_candidates)

    return answer


def test_each_prompt_gets_the_candidate_with_the_highest_predicted_iou(answers):
    for answer in answers(return_candidates=True):
        best = int(answer.iou.argmax())
        assert answer.iou.shape == (3,)
        assert np.array_equal(answer.rle.counts, answer.candidate_rles[best].counts)
        assert np.array_equal(answer.logits, answer.candidate_logits[best])
        assert np.array_equal(answer.box_xyxy, rle_to_box_xyxy(answer.rle))


def test_candidates_are_not_brought_to_the_host_unless_wanted(answers):
    for answer in answers():
        assert answer.candidate_rles == ()
        assert answer.candidate_logits.shape[0] == 0


def test_logits_are_handed_out_clamped(answers):
    assert all(np.abs(answer.logits).max() <= LOGIT_LIMIT for answer in answers())


def test_a_threshold_nothing_reaches_leaves_an_empty_mask(answers):
    for answer in answers(mask_threshold=1e9):
        assert answer.rle.counts.tolist() == [np.prod(answer.rle.size)]
        assert answer.box_xyxy.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("multimask_output", [True, False])
def test_answers_of_one_picture_are_gathered_also_if_there_are_none(answers, multimask_output):
    chosen = SegmentOptions(multimask_output=multimask_output)
    made = answers(multimask_output=multimask_output, return_candidates=True)
    low_res_hw = made[0].logits.shape
    full = gather_prediction(made, (480, 640), low_res_hw, chosen, return_candidates=True)
    none = gather_prediction([], (480, 640), low_res_hw, chosen, return_candidates=True)
    masks = 3 if multimask_output else 1
    assert (len(full), len(none)) == (3, 0)
    assert full.candidates.iou_prediction.shape == (3, masks)
    assert none.candidates.low_res_logits.shape == (0, masks, *low_res_hw)
    assert none.mask_box_xyxy.shape == (0, 4)
    assert np.array_equal(full.iou_prediction, [answer.iou.max() for answer in made])

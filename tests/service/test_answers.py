from __future__ import annotations

import io

import numpy as np
import pytest

from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.service.core import PADDING
from sam2_blocks.service.errors import TooLargeError
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import (
    PICTURE,
    PROMPTS,
    library_call,
    masks_of,
    segment,
)


def load_npz(answer):
    return np.load(io.BytesIO(answer))


@pytest.mark.parametrize("multimask_output", [True, False])
def test_rle_is_the_librarys_own_answer(make_service, nano_executor, multimask_output):
    answer = segment(
        make_service(), PICTURE, PROMPTS, format="rle", multimask_output=multimask_output
    )
    expected = library_call(nano_executor, PROMPTS, multimask_output=multimask_output)
    got = np.array([rle_to_mask(coco_to_rle(row.masks)) for row in answer.predictions])
    assert (got == masks_of(expected)).all()
    assert [row.confidence for row in answer.predictions] == expected.iou_prediction.tolist()
    assert {row.format for row in answer.predictions} == {"rle"}
    assert answer.unprompted is None


def test_polygons_filled_are_the_masks_exactly(make_service, nano_executor):
    answer = segment(make_service(), PICTURE, PROMPTS, polygon_form="corners")
    expected = masks_of(library_call(nano_executor, PROMPTS))
    for row, mask in zip(answer.predictions, expected, strict=True):
        rings = [np.array(ring, float) for ring in row.masks]
        assert (rle_to_mask(polygons_to_rle(rings, PICTURE.hw)) == mask).all()
        assert all(isinstance(number, int) for ring in row.masks for xy in ring for number in xy)


def test_polygons_are_those_of_the_public_server(make_service, nano_executor):
    cv2 = pytest.importorskip("cv2")
    answer = segment(make_service(), PICTURE, PROMPTS)
    expected = masks_of(library_call(nano_executor, PROMPTS))
    for row, mask in zip(answer.predictions, expected, strict=True):
        how = (cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        theirs, _ = cv2.findContours(mask.astype(np.uint8), *how)
        assert row.masks == [contour.reshape(-1, 2).tolist() for contour in theirs]


def test_a_tolerance_saves_corners(make_service):
    service = make_service()
    corners = [
        sum(len(ring) for row in answer.predictions for ring in row.masks)
        for answer in (segment(service, PICTURE, PROMPTS, tolerance=t) for t in (0, 2))
    ]
    assert corners[1] < corners[0]


def test_binary_is_logits_that_agree_with_the_masks(make_service, nano_executor):
    arrays = load_npz(segment(make_service(), PICTURE, PROMPTS, format="binary"))
    expected = library_call(nano_executor, PROMPTS)
    assert (arrays["masks"].dtype, arrays["low_res_masks"].dtype) == (np.float32, np.float32)
    assert ((arrays["masks"] > 0) == masks_of(expected)).all()
    assert (arrays["low_res_masks"] == expected.low_res_logits).all()
    assert (arrays["confidence"] == expected.iou_prediction).all()


def test_binary_logits_are_interpolated_as_torch_does(make_service):
    import torch

    arrays = load_npz(segment(make_service(), PICTURE, PROMPTS, format="binary"))
    low_res = torch.from_numpy(arrays["low_res_masks"])[:, None]
    wanted = torch.nn.functional.interpolate(low_res, PICTURE.hw, mode="bilinear")[:, 0].numpy()
    unclamped = np.abs(arrays["low_res_masks"]).max() < 32
    assert unclamped
    np.testing.assert_allclose(arrays["masks"], wanted, atol=1e-4)


def test_a_binary_answer_that_is_too_large_is_refused(make_service):
    with pytest.raises(TooLargeError, match="the logits would take 57600 bytes, the limit is 1000"):
        segment(make_service(max_answer_bytes=1000), PICTURE, PROMPTS, format="binary")


@pytest.mark.parametrize("answer_format", ["json", "rle", "binary"])
def test_masks_below_min_confidence_are_left_out(make_service, nano_executor, answer_format):
    confidence = library_call(nano_executor, PROMPTS).iou_prediction
    threshold = float(np.sort(confidence)[1])
    answer = segment(
        make_service(), PICTURE, PROMPTS, format=answer_format, min_confidence=threshold
    )
    kept = len(load_npz(answer)["masks"]) if answer_format == "binary" else len(answer.predictions)
    assert kept == 2


def test_without_prompts_the_mask_of_the_padding_point_is_flagged(make_service, nano_executor):
    answer = segment(make_service(), PICTURE, None, format="rle")
    [embedding] = nano_executor.embed([PICTURE])
    [expected] = nano_executor.segment([(embedding, PADDING)])
    [row] = answer.predictions
    assert answer.unprompted is True
    assert (rle_to_mask(coco_to_rle(row.masks)) == masks_of(expected)[0]).all()


EVERYTHING = {
    "points_per_side": 3,
    "pred_iou_thresh": 0,
    "stability_score_thresh": 0,
    "box_nms_thresh": 1,
}


def test_automatic_masks_come_in_every_format(make_service, nano_executor):
    service = make_service()
    rle = segment(service, PICTURE, format="rle", automatic_masks=EVERYTHING).predictions
    masks = np.array([rle_to_mask(coco_to_rle(row.masks)) for row in rle])
    given = {"automatic_masks": EVERYTHING, "polygon_form": "corners"}
    polygons = segment(service, PICTURE, **given).predictions
    for row, mask in zip(polygons, masks, strict=True):
        rings = [np.array(ring, float) for ring in row.masks]
        assert (rle_to_mask(polygons_to_rle(rings, PICTURE.hw)) == mask).all()
    arrays = load_npz(segment(service, PICTURE, format="binary", automatic_masks=EVERYTHING))
    assert ((arrays["masks"] > 0) == masks).all()
    assert arrays["low_res_masks"].shape == (len(masks), *nano_executor.model.low_res_hw)
    assert arrays["confidence"].tolist() == [row.confidence for row in rle]


def test_automatic_masks_honour_confidence_and_tolerance(make_service):
    service = make_service()
    every = segment(service, PICTURE, automatic_masks=EVERYTHING).predictions
    sure = [row for row in every if row.confidence >= every[1].confidence]
    options = {"automatic_masks": EVERYTHING, "min_confidence": every[1].confidence}
    assert segment(service, PICTURE, **options).predictions == sure
    assert len(sure) < len(every)
    rough = segment(service, PICTURE, **options, tolerance=3).predictions
    corners = [sum(len(ring) for row in rows for ring in row.masks) for rows in (sure, rough)]
    assert corners[1] < corners[0]


def test_automatic_masks_with_too_many_logits_are_refused(make_service):
    service = make_service(max_answer_bytes=100_000)
    with pytest.raises(TooLargeError, match=r"take more than 100000 bytes\. Use format 'rle'"):
        segment(service, PICTURE, format="binary", automatic_masks=EVERYTHING)
    assert segment(service, PICTURE, automatic_masks=EVERYTHING).predictions


@pytest.mark.parametrize("answer_format", ["rle", "json"])
def test_candidates_are_all_that_the_model_proposed_the_chosen_first(
    make_service, nano_executor, answer_format
):
    asked = {"format": answer_format, "candidates": True, "polygon_form": "corners"}
    answer = segment(make_service(), PICTURE, PROMPTS, **asked)
    expected = library_call(nano_executor, PROMPTS, return_candidates=True)
    for index, row in enumerate(answer.predictions):
        first, *others = row.candidates
        assert (first.masks, first.confidence) == (row.masks, row.confidence)
        assert len(others) == 2
        proposed = sorted(expected.candidates.iou_prediction[index].tolist(), reverse=True)
        assert [one.confidence for one in row.candidates] == proposed
        assert all(one.candidates is None for one in row.candidates)
    if answer_format == "rle":
        masks = {rle_to_mask(rle).tobytes() for row in expected.candidates.rles for rle in row}
        for row in answer.predictions:
            for one in row.candidates:
                assert rle_to_mask(coco_to_rle(one.masks)).tobytes() in masks


def test_candidates_belong_to_the_masks_that_are_sure_enough(make_service):
    service = make_service()
    all_of_them = segment(service, PICTURE, PROMPTS, format="rle", candidates=True).predictions
    least = sorted(row.confidence for row in all_of_them)[1]
    asked = {"format": "rle", "candidates": True, "min_confidence": least}
    kept = segment(service, PICTURE, PROMPTS, **asked).predictions
    assert kept == [row for row in all_of_them if row.confidence >= least]


def test_without_proposals_a_mask_is_its_own_candidate(make_service):
    [row] = segment(
        make_service(FakeExecutor("nano")), PICTURE, PROMPTS[:1], format="rle", candidates=True
    ).predictions
    assert [one.masks for one in row.candidates] == [row.masks]


def test_without_being_asked_there_are_no_candidates(make_service):
    [row, *_] = segment(make_service(), PICTURE, PROMPTS, format="rle").predictions
    assert "candidates" not in row.model_dump()

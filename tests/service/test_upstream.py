"""What Roboflow's own tests of its SAM 2 model and routes expect, asked of ours.

Source: roboflow/inference, ``tests/inference``: ``models_predictions_tests/test_sam2.py``,
``unit_tests/models/test_sam2_inference_models.py`` and ``integration_tests/test_sam2.py``; the same
expectations on pictures of ours, written anew. What differs is in ``docs/coming-from/roboflow.md``.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.service.errors import ImageConflictError, RequestError
from tests.service.conftest import (
    PICTURE,
    box,
    embed,
    fresh,
    library_call,
    picture,
    point,
    segment,
)

CLICK = [{"points": [point(40, 30)]}]
TWO_CLICKS = [{"points": [point(40, 30), point(2, 2, positive=False)]}]


def mask_of(answer):
    return rle_to_mask(coco_to_rle(answer.predictions[0].masks))


def test_an_image_is_embedded(make_service, nano_executor):
    answer = embed(make_service(), PICTURE)
    assert answer.image_id
    with np.load(io.BytesIO(embed(make_service(), PICTURE, format="binary"))) as arrays:
        [expected] = nano_executor.embed([PICTURE])
        assert np.array_equal(arrays["image_embed"], expected.image_embed.float().cpu())
        assert arrays["image_hw"].tolist() == list(PICTURE.hw)


def test_one_click_gives_the_mask_and_the_score_of_the_model(make_service, nano_executor):
    [row] = segment(make_service(), PICTURE, CLICK, format="rle").predictions
    expected = library_call(nano_executor, CLICK)
    assert row.confidence == float(expected.iou_prediction[0])
    assert np.array_equal(rle_to_mask(coco_to_rle(row.masks)), rle_to_mask(expected.rles[0]))


def test_an_image_that_was_embedded_is_not_embedded_again(make_service, nano_executor):
    service = make_service()
    name = embed(service, PICTURE).image_id
    by_name = segment(service, None, CLICK, image_id=name, format="rle")
    assert np.array_equal(mask_of(by_name), mask_of(segment(service, PICTURE, CLICK, format="rle")))


def test_a_name_whose_embedding_is_gone_is_embedded_again_from_its_image(make_service):
    service = make_service(embedding_entries=1)
    wanted = segment(service, PICTURE, CLICK, image_id="truck", format="rle")
    segment(service, picture(1), CLICK, image_id="other", format="rle")
    again = segment(service, PICTURE, CLICK, image_id="truck", format="rle")
    assert np.array_equal(mask_of(again), mask_of(wanted))


def test_another_picture_by_the_same_name_is_no_miss(make_service):
    service = make_service()
    segment(service, PICTURE, CLICK, image_id="truck")
    with pytest.raises(ImageConflictError, match="stands for other pixels already"):
        segment(service, picture(1), CLICK, image_id="truck")


def test_a_prompt_that_is_wrong_is_the_error_and_embeds_nothing_again(make_service, nano_executor):
    executor = fresh(nano_executor)
    service = make_service(executor)
    segment(service, PICTURE, CLICK, image_id="truck")
    with pytest.raises(RequestError, match="prompts: "):
        segment(service, None, [box(500, 500, 600, 600)], image_id="truck")
    assert executor.cache_stats().misses == 1


def test_logits_that_were_kept_change_the_mask_of_more_clicks(make_service):
    service = make_service()
    alone = segment(service, PICTURE, TWO_CLICKS, format="binary")
    segment(service, PICTURE, CLICK, save_logits_to_cache=True)
    later = segment(service, PICTURE, TWO_CLICKS, load_logits_from_cache=True, format="binary")
    with np.load(io.BytesIO(alone)) as one, np.load(io.BytesIO(later)) as other:
        assert not np.array_equal(one["low_res_masks"], other["low_res_masks"])


def test_polygons_and_run_lengths_are_one_mask(make_service):
    cv2 = pytest.importorskip("cv2")
    service = make_service()
    expected = mask_of(segment(service, PICTURE, CLICK, format="rle"))
    [row] = segment(service, PICTURE, CLICK, format="json").predictions
    drawn = np.zeros(PICTURE.hw, np.uint8)
    cv2.fillPoly(drawn, [np.array(ring, np.int32) for ring in row.masks], 1)
    outside = np.zeros(PICTURE.hw, np.uint8)  # polygons have no holes, as on the public server
    found, _ = cv2.findContours(expected.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outside, found, -1, 1, cv2.FILLED)
    union = np.logical_or(drawn, outside).sum()
    assert np.logical_and(drawn, outside).sum() / union > 0.99


def test_caches_of_two_hold_out_against_five_names(make_service):
    service = make_service(embedding_entries=2, logits_entries=2)
    for number in range(5):
        answer = segment(
            service,
            PICTURE,
            CLICK,
            image_id=f"truck_{number}",
            save_logits_to_cache=True,
            load_logits_from_cache=True,
        )
        assert len(answer.predictions) == 1
    assert len(service._logits) <= 2


def test_run_lengths_are_those_of_coco(make_service):
    answer = segment(make_service(), PICTURE, CLICK, format="rle")
    assert answer.time >= 0
    [row] = answer.predictions
    assert row.format == "rle"
    assert row.masks["size"] == list(PICTURE.hw)
    assert isinstance(row.masks["counts"], str)

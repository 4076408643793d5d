from __future__ import annotations

import asyncio
import io
import threading
import time

import numpy as np
import pytest

from sam2_blocks.masks.polygons import polygons_to_rle
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service.core import PADDING
from sam2_blocks.service.errors import (
    BusyError,
    ImageConflictError,
    ImageRefusedError,
    RequestError,
    ShuttingDownError,
    TooLargeError,
    UnknownImageError,
    UnknownModelError,
)
from sam2_blocks.strategies.automatic import POINTS_PER_BATCH, generate_masks
from sam2_blocks.testing import FakeExecutor, sample_embedding
from sam2_blocks.values import AutomaticSettings, Image, Prompt, PromptSet
from tests.service.conftest import as_request, box, embed, fresh, picture, point, segment

PICTURE = picture()
PROMPTS = [box(10, 10, 60, 50), {"points": [point(40, 30)]}, box(2, 2, 20, 20)]


def library_call(executor, prompts, image=PICTURE, **options):
    """What the library answers itself."""
    request = Sam2SegmentationRequest(image=as_request(image), prompts=prompts)
    [embedding] = executor.embed([image])
    prompt_set = request.prompts.to_prompt_set(image.hw)
    return executor.segment([(embedding, prompt_set)], **options)[0]


def masks_of(prediction):
    return np.array([rle_to_mask(rle) for rle in prediction.rles])


def load_npz(answer):
    return np.load(io.BytesIO(answer))


# --- answers ----------------------------------------------------------------------------------


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
    answer = segment(make_service(), PICTURE, PROMPTS)
    expected = masks_of(library_call(nano_executor, PROMPTS))
    for row, mask in zip(answer.predictions, expected, strict=True):
        rings = [np.array(ring, float) for ring in row.masks]
        assert (rle_to_mask(polygons_to_rle(rings, PICTURE.hw)) == mask).all()
        assert all(isinstance(number, int) for ring in row.masks for xy in ring for number in xy)


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


# --- automatic masks --------------------------------------------------------------------------

EVERYTHING = {
    "points_per_side": 3,
    "pred_iou_thresh": 0,
    "stability_score_thresh": 0,
    "box_nms_thresh": 1,
}


def everything(executor, **options):
    [embedding] = executor.embed([PICTURE])
    settings = AutomaticSettings(**EVERYTHING, **options)
    return generate_masks(executor, embedding, settings).prediction


@pytest.mark.parametrize("multimask_output", [True, False])
def test_automatic_masks_are_the_librarys_own(make_service, nano_executor, multimask_output):
    answer = segment(
        make_service(),
        PICTURE,
        format="rle",
        automatic_masks=EVERYTHING,
        multimask_output=multimask_output,
    )
    expected = everything(nano_executor, multimask_output=multimask_output)
    got = [rle_to_mask(coco_to_rle(row.masks)) for row in answer.predictions]
    assert len(got) > 1
    assert (np.array(got) == masks_of(expected)).all()
    assert [row.confidence for row in answer.predictions] == expected.iou_prediction.tolist()
    assert answer.unprompted is None


def test_automatic_masks_come_in_every_format(make_service, nano_executor):
    service = make_service()
    rle = segment(service, PICTURE, format="rle", automatic_masks=EVERYTHING).predictions
    masks = np.array([rle_to_mask(coco_to_rle(row.masks)) for row in rle])
    polygons = segment(service, PICTURE, automatic_masks=EVERYTHING).predictions
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


def test_automatic_masks_may_be_none(make_service):
    strict = {"points_per_side": 2, "pred_iou_thresh": 1}
    service = make_service()
    assert segment(service, PICTURE, automatic_masks=strict).predictions == []
    arrays = load_npz(segment(service, PICTURE, format="binary", automatic_masks=strict))
    assert arrays["masks"].shape == (0, *PICTURE.hw)


def test_automatic_masks_with_too_many_logits_are_refused(make_service):
    service = make_service(max_answer_bytes=100_000)
    with pytest.raises(TooLargeError, match=r"take more than 100000 bytes\. Use format 'rle'"):
        segment(service, PICTURE, format="binary", automatic_masks=EVERYTHING)
    assert segment(service, PICTURE, automatic_masks=EVERYTHING).predictions


def test_automatic_masks_of_a_model_that_needs_prompts(make_service):
    class Plain:
        def __init__(self):
            self.spec = FakeExecutor("mine").spec

        def embed(self, images):
            return [sample_embedding(image, self.spec) for image in images]

        segment = FakeExecutor.segment

    with pytest.raises(RequestError, match="automatic_masks: the model 'mine' needs prompts"):
        segment(make_service(executor=Plain()), PICTURE, automatic_masks=True)


def test_others_are_answered_between_the_batches_of_automatic_masks(make_service, nano_executor):
    service = make_service(window_ms=0)
    order = []

    async def ask(name, **fields):
        fields = {"image": as_request(PICTURE), "format": "rle", **fields}
        await service.segment(Sam2SegmentationRequest.model_validate(fields))
        order.append(name)

    async def both():
        await ask("first", prompts=PROMPTS)  # the image is known from here on
        await asyncio.gather(
            ask("everything", automatic_masks={**EVERYTHING, "points_per_side": 16}),
            ask("prompts", prompts=PROMPTS),
        )

    asyncio.run(both())
    assert order == ["first", "prompts", "everything"]


def test_automatic_masks_stop_when_nobody_waits_any_more(make_service):
    class Slow(FakeExecutor):
        proposed = 0

        def propose_masks(self, embedding, points_xy, settings, *, return_logits=False):
            self.proposed += 1
            time.sleep(0.02)
            return super().propose_masks(embedding, points_xy, settings)

    executor = Slow("nano")
    service = make_service(executor=executor)
    fields = {"image": as_request(PICTURE), "automatic_masks": {"points_per_side": 64}}
    request = Sam2SegmentationRequest.model_validate(fields)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(service.segment(request), 0.2))
    assert 0 < executor.proposed < 64 * 64 / POINTS_PER_BATCH / 2


# --- embeddings -------------------------------------------------------------------------------


def test_an_embedding_comes_as_tensors_when_asked(make_service, nano_executor):
    arrays = load_npz(embed(make_service(), PICTURE, format="binary"))
    [embedding] = nano_executor.embed([PICTURE])
    assert (arrays["image_embed"] == embedding.image_embed.numpy()).all()
    assert arrays["image_embed"].dtype == np.float32
    for index, features in enumerate(embedding.high_res_feats):
        assert (arrays[f"high_res_feats_{index}"] == features.numpy()).all()
    assert arrays["image_hw"].tolist() == [60, 80]


# --- names of images --------------------------------------------------------------------------


def test_an_image_embedded_under_a_name_needs_not_be_sent_again(make_service):
    service = make_service()
    assert embed(service, PICTURE, image_id="cat").image_id == "cat"
    again = segment(service, None, PROMPTS, image_id="cat", format="rle")
    sent = segment(service, PICTURE, PROMPTS, format="rle")
    assert again.predictions == sent.predictions
    assert service.models.default.cache_stats().misses == 1


def test_the_automatic_name_can_be_used_too(make_service):
    service = make_service()
    name = embed(service, PICTURE).image_id
    assert len(name) == 32
    assert segment(service, None, PROMPTS, image_id=name).predictions


def test_an_embedding_that_was_evicted_is_unknown(make_service):
    service = make_service(embedding_entries=1)
    embed(service, PICTURE, image_id="cat")
    embed(service, picture(1), image_id="dog")
    with pytest.raises(UnknownImageError, match="its embedding is not kept any more"):
        segment(service, None, PROMPTS, image_id="cat")
    assert segment(service, PICTURE, PROMPTS, image_id="cat").predictions


def test_replace_lets_a_name_move_to_other_pixels(make_service):
    service = make_service(on_conflict="replace")
    embed(service, PICTURE, image_id="cat")
    embed(service, picture(1), image_id="cat")
    moved = segment(service, None, PROMPTS, image_id="cat", format="rle")
    assert moved.predictions == segment(service, picture(1), PROMPTS, format="rle").predictions


def test_an_executor_without_a_cache_knows_no_names(make_service):
    service = make_service(executor=FakeExecutor("nano"))
    embed(service, PICTURE, image_id="cat")
    with pytest.raises(UnknownImageError, match="not kept"):
        segment(service, None, PROMPTS, image_id="cat")


# --- cached logits ----------------------------------------------------------------------------


def test_cached_logits_are_used_as_mask_input_and_change_the_result(make_service, nano_executor):
    service = make_service()
    first, second = [point(20, 20)], [point(20, 20), point(50, 40)]
    segment(service, PICTURE, {"points": first}, save_logits_to_cache=True)
    refined, plain = (
        load_npz(
            segment(
                service,
                PICTURE,
                {"points": second},
                format="binary",
                load_logits_from_cache=load,
            )
        )["low_res_masks"]
        for load in (True, False)
    )
    earlier = library_call(nano_executor, {"points": first})
    coords, labels = np.float32([[20, 20], [50, 40]]), np.ones(2, np.int32)
    prompts = PromptSet((Prompt(None, coords, labels, earlier.low_res_logits),))
    [embedding] = nano_executor.embed([PICTURE])
    [expected] = nano_executor.segment([(embedding, prompts)])
    assert (refined == expected.low_res_logits).all()
    assert not np.array_equal(refined, plain)


def test_logits_are_neither_saved_nor_used_unless_asked(make_service):
    service = make_service()
    segment(service, PICTURE, {"points": [point(20, 20)]})
    assert len(service._logits) == 0


def test_a_switched_off_logits_cache_keeps_nothing(make_service):
    service = make_service(logits_entries=0)
    segment(service, PICTURE, PROMPTS, save_logits_to_cache=True)
    assert len(service._logits) == 0


def test_logits_are_looked_for_beside_the_event_loop(make_service, monkeypatch):
    service = make_service()
    threads = {}
    for name in ("load", "save"):
        method = getattr(service._logits, name)

        def watched(*args, name=name, method=method):
            threads[name] = threading.current_thread()
            return method(*args)

        monkeypatch.setattr(service._logits, name, watched)
    switches = {"save_logits_to_cache": True, "load_logits_from_cache": True}
    segment(service, PICTURE, PROMPTS, **switches)
    assert set(threads) == {"load", "save"}
    assert threading.current_thread() not in threads.values()


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"image": as_request(PICTURE), "sam2_version_id": "x"}, UnknownModelError, "no model 'x'"),
        ({"image_id": "nobody"}, UnknownImageError, "'nobody' is not known"),
        ({"image": {"type": "base64", "value": "xx"}}, ImageRefusedError, "^image: "),
        (
            {"image": as_request(PICTURE), "prompts": [box(100, 0, 120, 9)]},
            RequestError,
            "^prompts: prompt 0: box .* lies wholly outside the 80x60 image",
        ),
        (
            {"image": as_request(PICTURE), "prompts": [box(0, 0, 9, 9)] * 5},
            TooLargeError,
            "prompts: there are 5, the limit is 4",
        ),
        (
            {"image": as_request(PICTURE), "prompts": {"points": [point(1, 1)] * 4}},
            TooLargeError,
            "prompts: one has 4 points, the limit is 3",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(make_service, fields, error, message):
    service = make_service(max_prompts=4, max_points=3)
    with pytest.raises(error, match=message):
        segment(service, **fields)


def test_boxes_are_clipped_without_a_warning(make_service):
    outside, inside = (
        segment(make_service(), PICTURE, [edges]).predictions
        for edges in (box(-20, -20, 40, 40), box(0, 0, 40, 40))
    )
    assert outside == inside


def test_a_full_queue_refuses(make_service):
    service = make_service(max_queue=1)
    with service.admitted():
        assert service.in_flight == 1
        with pytest.raises(BusyError, match="1 requests are waiting already"), service.admitted():
            pass
    with service.admitted():
        pass


def test_a_service_that_drains_takes_nothing_new(make_service):
    service = make_service()
    service.drain()
    with pytest.raises(ShuttingDownError, match="shutting down"), service.admitted():
        pass


# --- many at once -----------------------------------------------------------------------------


def assert_same(answer, expected):
    """The masks to the pixel; the confidence but for the rounding of another batch size."""
    for row, wanted in zip(answer.predictions, expected.predictions, strict=True):
        assert row.masks == wanted.masks
        assert row.confidence == pytest.approx(wanted.confidence, abs=1e-5)


def together(service, requests):
    async def run():
        return await asyncio.gather(
            *(service.segment(Sam2SegmentationRequest.model_validate(r)) for r in requests),
            return_exceptions=True,
        )

    return asyncio.run(run())


def test_requests_that_come_together_share_batches_and_keep_their_answers(
    make_service, nano_executor
):
    sizes = []
    service = make_service(observe=lambda stage, size: sizes.append((stage, size)))
    pictures = [picture(seed, (40 + seed, 50)) for seed in range(6)]
    requests = [
        {
            "image": as_request(image),
            "prompts": PROMPTS[1:2] * (1 + seed % 3),
            "format": "rle",
            "multimask_output": seed % 2 == 0,
        }
        for seed, image in enumerate(pictures)
    ]
    together(service, requests)  # now the embeddings are known, and prompts come together
    together_answers = together(service, requests)
    alone = make_service(max_batch=1)
    for request, answer in zip(requests, together_answers, strict=True):
        [expected] = together(alone, [request])
        assert_same(answer, expected)
    assert {size for stage, size in sizes if stage == "encode"} == {1}  # on a CPU
    assert max(size for stage, size in sizes if stage == "decode") > 1


def test_images_that_come_together_share_a_batch_beside_a_cpu(make_service):
    sizes = []

    class Device(FakeExecutor):
        def __init__(self):
            super().__init__("nano")
            self.spec = self.spec._replace(device="cuda:0")

    service = make_service(
        executor=Device(), observe=lambda stage, size: sizes.append((stage, size))
    )
    together(service, [{"image": as_request(picture(seed))} for seed in range(4)])
    assert max(size for stage, size in sizes if stage == "encode") > 1


def test_many_requests_for_one_new_image_run_the_encoder_once(make_service):
    service = make_service()
    requests = [{"image": as_request(PICTURE), "prompts": PROMPTS, "format": "rle"}] * 40
    answers = together(service, requests)
    for answer in answers:
        assert_same(answer, answers[0])
    assert service.models.default.cache_stats().misses == 1


def test_one_name_for_two_pictures_at_once_never_mixes_them_up(make_service):
    service = make_service()
    pictures = [picture(seed) for seed in range(4)]
    own = [segment(service, image, PROMPTS, format="rle") for image in pictures]
    requests = [
        {"image": as_request(pictures[n % 4]), "image_id": "x", "prompts": PROMPTS, "format": "rle"}
        for n in range(24)
    ]
    answers = together(service, requests)
    for number, answer in enumerate(answers):
        if not isinstance(answer, ImageConflictError):
            assert_same(answer, own[number % 4])
    assert sum(isinstance(answer, ImageConflictError) for answer in answers) == 18


def test_embeddings_are_bounded_in_bytes(nano_executor, make_service):
    size = nano_executor.embed([PICTURE])[0].nbytes
    service = make_service(embedding_bytes=2 * size)
    for seed in range(5):
        embed(service, picture(seed))
    assert service.models.default.cache_stats().nbytes == 2 * size


def test_an_embedding_on_disk_is_still_known_by_name(make_service, tmp_path):
    service = make_service(embedding_entries=1, embedding_dir=tmp_path)
    embed(service, PICTURE, image_id="cat")
    service.models.default.flush_cache()
    embed(service, picture(1), image_id="dog")
    assert segment(service, None, PROMPTS, image_id="cat").predictions
    assert service.models.default.cache_stats().misses == 2


def test_a_restarted_service_encodes_no_picture_it_has_on_disk(make_service, tmp_path):
    first = make_service(embedding_dir=tmp_path)
    before = segment(first, PICTURE, PROMPTS, format="rle")
    first.models.default.flush_cache()
    second = make_service(embedding_dir=tmp_path)
    after = segment(second, PICTURE, PROMPTS, format="rle")
    assert [row.masks for row in after.predictions] == [row.masks for row in before.predictions]
    assert second.models.default.cache_stats().misses == 0


def test_one_cache_serves_the_executor_and_the_service(nano_executor, make_service):
    executor = fresh(nano_executor)
    executor.embed([Image(PICTURE.pixels, "read elsewhere")])
    embed(make_service(executor=executor), PICTURE)
    assert executor.cache_stats().misses == 1

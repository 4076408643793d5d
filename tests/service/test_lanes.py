from __future__ import annotations

import asyncio
import threading

import pytest

from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service.errors import BusyError
from sam2_blocks.service.lanes import Lane
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import (
    EVERY_WAY,
    PICTURE,
    PROMPTS,
    as_request,
    assert_same_masks,
    fresh,
    picture,
    segment_together,
)

EVERYTHING = {
    "points_per_side": 3,
    "pred_iou_thresh": 0,
    "stability_score_thresh": 0,
    "box_nms_thresh": 1,
}


def events(count):
    return [threading.Event() for _ in range(count)]


@EVERY_WAY
def test_others_are_answered_between_the_batches_of_automatic_masks(make_service, nano_executor):
    executor, begun, prompted, order = fresh(nano_executor), *events(2), []
    propose = executor.propose_masks

    def gated(*given, **options):
        begun.set()
        assert prompted.wait(120)
        return propose(*given, **options)

    executor.propose_masks = gated
    # Told just before prompts are sent to the model's thread.
    observe = lambda stage, _: stage == "decode" and prompted.set()  # noqa: E731
    service = make_service(executor, window_ms=0, observe=observe)

    async def ask(name, **fields):
        fields = {"image": as_request(PICTURE), "format": "rle", **fields}
        await service.segment(Sam2SegmentationRequest.model_validate(fields))
        order.append(name)

    async def both():
        await ask("first", prompts=PROMPTS)  # the image is known from here on
        prompted.clear()
        fields = {"automatic_masks": {**EVERYTHING, "points_per_side": 16}}
        everything = asyncio.create_task(ask("everything", **fields))
        assert await asyncio.to_thread(begun.wait, 120)
        await asyncio.gather(everything, ask("prompts", prompts=PROMPTS))

    asyncio.run(both())
    assert order == ["first", "prompts", "everything"]


def test_automatic_masks_stop_when_nobody_waits_any_more(make_service):
    begun, given_up = events(2)

    class Gated(FakeExecutor):
        proposed = 0

        def propose_masks(self, *given, **options):
            self.proposed += 1
            begun.set()
            assert given_up.wait(120)
            return super().propose_masks(*given, **options)

    executor = Gated("nano")
    service = make_service(executor=executor)
    fields = {"image": as_request(PICTURE), "automatic_masks": {"points_per_side": 64}}
    request = Sam2SegmentationRequest.model_validate(fields)

    async def give_up():
        segmenting = asyncio.create_task(service.segment(request))
        assert await asyncio.to_thread(begun.wait, 120)
        segmenting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await segmenting
        given_up.set()

    asyncio.run(give_up())
    service.close()  # waits for what was begun
    assert executor.proposed == 1


def test_a_full_queue_refuses(make_service):
    service = make_service(max_queue=1)
    with service.admitted():
        assert service.in_flight == 1
        with pytest.raises(BusyError, match="1 requests are waiting already"), service.admitted():
            pass
    with service.admitted():
        pass


@EVERY_WAY
def test_requests_that_come_together_share_batches_and_keep_their_answers(
    make_service, nano_executor
):
    sizes = []
    service = make_service(window_ms=500, observe=lambda *batch: sizes.append(batch))
    pictures = [picture(seed, (40 + seed, 50)) for seed in range(6)]
    requests = [
        {
            "image": as_request(image),
            "image_id": image.id,
            "prompts": PROMPTS[1:2] * (1 + seed % 3),
            "format": "rle",
            "multimask_output": seed % 2 == 0,
        }
        for seed, image in enumerate(pictures)
    ]
    segment_together(service, requests)  # now the embeddings are known
    # By name: prompts then wait for no picture to be decoded, and come together.
    by_name = [{**request, "image": None} for request in requests]
    together_answers = segment_together(service, by_name)
    alone = make_service(max_batch=1)
    for request, answer in zip(requests, together_answers, strict=True):
        [expected] = segment_together(alone, [request])
        assert_same_masks(answer, expected)
    assert {size for stage, size in sizes if stage == "encode"} == {1}  # on a CPU
    assert max(size for stage, size in sizes if stage == "decode") > 1


def test_images_that_come_together_share_a_batch_beside_a_cpu():
    sizes = []

    class Device(FakeExecutor):
        def __init__(self):
            super().__init__("nano")
            self.spec = self.spec._replace(device="cuda:0")

    # Past the decoding of pictures, whose processes finish when they like.
    lane = Lane(Device(), ServiceSettings(), lambda stage, size: sizes.append((stage, size)))

    async def embed_all():
        await asyncio.gather(*(lane.embed(picture(seed)) for seed in range(4)))

    asyncio.run(embed_all())
    lane.close()
    assert sizes == [("encode", 4)]


@EVERY_WAY
def test_many_requests_for_one_new_image_run_the_encoder_once(make_service):
    service = make_service()
    requests = [{"image": as_request(PICTURE), "prompts": PROMPTS, "format": "rle"}] * 40
    answers = segment_together(service, requests)
    for answer in answers:
        assert_same_masks(answer, answers[0])
    assert service.models.default.cache_stats().misses == 1

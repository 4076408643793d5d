from __future__ import annotations

import asyncio
import time

import pytest

from sam2_blocks.options import AutomaticSettings
from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service.errors import BusyError
from sam2_blocks.service.lanes import Lane
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.strategies.automatic import POINTS_PER_BATCH, generate_masks
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import as_request, box, picture, point

PICTURE = picture()
PROMPTS = [box(10, 10, 60, 50), {"points": [point(40, 30)]}, box(2, 2, 20, 20)]
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

    async def give_up():
        segmenting = asyncio.create_task(service.segment(request))
        while not executor.proposed:
            await asyncio.sleep(0.01)
        segmenting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await segmenting

    asyncio.run(give_up())
    assert 0 < executor.proposed < 64 * 64 / POINTS_PER_BATCH / 2


def test_a_full_queue_refuses(make_service):
    service = make_service(max_queue=1)
    with service.admitted():
        assert service.in_flight == 1
        with pytest.raises(BusyError, match="1 requests are waiting already"), service.admitted():
            pass
    with service.admitted():
        pass


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
    # Long enough for the last picture to be decoded on a busy machine.
    service = make_service(window_ms=500, observe=lambda *batch: sizes.append(batch))
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


def test_many_requests_for_one_new_image_run_the_encoder_once(make_service):
    service = make_service()
    requests = [{"image": as_request(PICTURE), "prompts": PROMPTS, "format": "rle"}] * 40
    answers = together(service, requests)
    for answer in answers:
        assert_same(answer, answers[0])
    assert service.models.default.cache_stats().misses == 1

"""Sixteen defects of the public SAM 2 service, seen there, and proven absent here.

Each test is named after one; most go through the service, as a client would.
"""

from __future__ import annotations

import asyncio
import pickle
import threading

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.executor.cache.lru import ByteCache
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.rle import mask_to_rle, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.requests import InferenceRequestImage, Sam2SegmentationRequest
from sam2_blocks.service.answers import to_polygon_rows
from sam2_blocks.service.errors import ImageConflictError, ImageRefusedError
from sam2_blocks.service.logits import prompt_key
from sam2_blocks.testing import FakeExecutor, sample_embedding, sample_image
from sam2_blocks.values import Image, MaskPrediction, PromptSet
from tests.service.conftest import (
    EVERY_WAY,
    as_request,
    box,
    embed,
    make_service,
    nano_executor,
    open_images,
    picture,
    point,
    segment,
)

__all__ = ["make_service", "nano_executor"]

PICTURE = picture()
RED = Image(np.full((8, 8, 3), (200, 30, 10), np.uint8))


class SeeingExecutor(FakeExecutor):
    """Remembers the pixels it was given."""

    def __init__(self):
        super().__init__("nano")
        self.seen = []

    def embed(self, images):
        self.seen += [image.pixels for image in images]
        return super().embed(images)


def prediction_of(*masks):
    rles = tuple(mask_to_rle(mask) for mask in masks)
    return MaskPrediction(
        masks[0].shape,
        rles,
        np.full(len(rles), 0.5, np.float32),
        np.zeros((len(rles), 4, 4), np.float32),
        np.array([rle_to_box_xyxy(rle) for rle in rles]),
    )


def ring_and_speck():
    """A mask with a hole, in two parts."""
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:6] = False
    mask[10, 10] = True
    return mask


def test_defect_01_the_model_gets_rgb_not_bgr(make_service):
    executor = SeeingExecutor()
    embed(make_service(executor=executor), RED)
    assert executor.seen[0][0, 0].tolist() == [200, 30, 10]
    bgr = np.ascontiguousarray(RED.pixels[:, :, ::-1])  # as OpenCV and its users have it
    sent = InferenceRequestImage(type="numpy_object", value=bgr)
    read = open_images({"image": sent})["image"]
    assert read.pixels[0, 0].tolist() == [200, 30, 10]


@EVERY_WAY
def test_defect_02_a_reused_image_id_never_gives_another_images_masks(make_service):
    service = make_service()
    embed(service, PICTURE, image_id="cat")
    with pytest.raises(ImageConflictError):
        segment(service, picture(1), [box(1, 1, 9, 9)], image_id="cat")
    with pytest.raises(ImageRefusedError):
        segment(service, {"type": "base64", "value": "Z2FyYmFnZQ=="}, image_id="cat")


def test_defect_03_the_automatic_id_covers_shape_and_is_not_cut_short(make_service):
    service = make_service()
    ids = [
        embed(service, Image(np.zeros((*hw, 3), np.uint8))).image_id for hw in ((10, 20), (20, 10))
    ]
    assert ids[0] != ids[1]
    assert len(bytes.fromhex(ids[0])) == 16
    assert service.models.default.cache_stats().misses == 2


@EVERY_WAY
def test_defect_04_the_cache_is_lru_and_holds_no_more_than_its_limits(make_service):
    service = make_service(embedding_entries=2)
    cats = [picture(seed) for seed in range(3)]
    for image in (cats[0], cats[1], cats[0], cats[2]):
        embed(service, image)
    stats = service.models.default.cache_stats()
    assert stats.entries == 2
    embed(service, cats[0])  # used last but one, so it is the second that had to go
    assert service.models.default.cache_stats().misses == stats.misses
    small: ByteCache = ByteCache(max_bytes=10)
    assert small.get_many(["a"], lambda _: [np.zeros(11, np.uint8)])
    assert small.stats().nbytes == 0


def test_defect_05_prompts_with_different_boxes_have_different_keys():
    embedding = sample_embedding(sample_image())
    boxes = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 4, 4), (2, 2, 3, 4), (1, 3, 3, 4)]
    keys = {prompt_key(embedding, p) for p in PromptSet.from_boxes(boxes).prompts}
    assert len(keys) == 5


@EVERY_WAY
def test_defect_06_the_logits_of_every_prompt_of_a_set_are_saved_and_loaded(make_service):
    service = make_service()
    first = [{"points": [point(20, 20)]}, {"points": [point(50, 40)]}]
    segment(service, PICTURE, first, save_logits_to_cache=True)
    assert len(service._logits) == 2
    more = [{"points": [*p["points"], point(30, 30)]} for p in (*first, {"points": []})]
    request = Sam2SegmentationRequest(image=as_request(PICTURE), prompts=more)
    [embedding] = service.models.default.embed([PICTURE])
    loaded = service._logits.load(embedding, request.prompts.to_prompt_set(PICTURE.hw))
    assert [prompt.mask_input is not None for prompt in loaded.prompts] == [True, True, False]
    assert not np.array_equal(loaded.prompts[0].mask_input, loaded.prompts[1].mask_input)


@EVERY_WAY
def test_defect_07_the_search_for_priors_survives_none_order_and_competition(make_service):
    service = make_service()
    assert len(segment(service, PICTURE, None, load_logits_from_cache=True).predictions) == 1
    a, b, c, d = point(20, 20), point(50, 40), point(30, 30), point(60, 10)
    segment(service, PICTURE, [{"points": [a]}, {"points": [a, b]}], save_logits_to_cache=True)
    [embedding] = service.models.default.embed([PICTURE])

    def starts(*prompts):
        request = Sam2SegmentationRequest(
            image=as_request(PICTURE), prompts=[{"points": points} for points in prompts]
        )
        given = request.prompts.to_prompt_set(PICTURE.hw)
        return [p.mask_input for p in service._logits.load(embedding, given).prompts]

    [reordered] = starts([b, a])
    [from_a] = starts([a, d])
    assert np.array_equal(reordered, from_a)  # its largest strict subset is [a], not itself
    both = starts([a, c], [a, b, c])
    assert all(mask is not None for mask in both)
    assert not np.array_equal(*both)


@pytest.mark.parametrize("prompts", [{"bx": 1}, {"box": {"x": 1}}, [{}], "box", {"points": "x"}])
def test_defect_08_a_malformed_prompt_is_an_error_not_no_prompt(prompts):
    with pytest.raises(ValueError, match="prompts"):
        Sam2SegmentationRequest(image=as_request(PICTURE), prompts=prompts)


@EVERY_WAY
def test_defect_09_a_cached_id_needs_no_image(make_service):
    service = make_service()
    embed(service, PICTURE, image_id="cat")
    assert embed(service, image_id="cat").image_id == "cat"
    assert service.models.default.cache_stats().misses == 1


def test_defect_10_a_mask_without_any_prompt_says_so(make_service):
    answer = segment(make_service(), PICTURE, None)
    assert answer.unprompted is True
    assert answer.model_dump()["unprompted"] is True
    assert "unprompted" not in segment(make_service(), PICTURE, [box(1, 1, 9, 9)]).model_dump()


def test_defect_11_the_block_keeps_number_class_and_id_of_the_detections(run_one_step):
    none = run_one_step("sam2/segment@v1", {"image": PICTURE, "boxes": sv.Detections.empty()})
    assert len(none.outputs["predictions"]) == 0
    unnamed = sv.Detections(
        xyxy=np.array([[1, 1, 9, 9]], np.float32),
        class_id=np.array([3]),
        data={"detection_id": np.array(["detector-7"])},
    )
    result = run_one_step("sam2/segment@v1", {"image": PICTURE, "boxes": unnamed})
    masks = result.outputs["predictions"]
    assert masks.class_id.tolist() == [3]
    assert masks.data["prompt_detection_id"].tolist() == ["detector-7"]
    two_parts = to_detections(prediction_of(ring_and_speck()))
    assert len(two_parts) == 1


def test_defect_12_masks_can_be_left_out_by_confidence(make_service):
    service = make_service()
    prompts = [box(10, 10, 60, 50), box(2, 2, 20, 20), box(30, 5, 70, 30)]
    confidence = [row.confidence for row in segment(service, PICTURE, prompts).predictions]
    high, low = max(confidence), min(confidence)
    kept = segment(service, PICTURE, prompts, min_confidence=(high + low) / 2).predictions
    assert high in [row.confidence for row in kept]
    assert low not in [row.confidence for row in kept]


def test_defect_13_outlines_boxes_and_thresholds_are_exact():
    mask = ring_and_speck()
    [row] = to_polygon_rows(prediction_of(mask), form="corners")
    filled = polygons_to_rle([np.array(ring, float) for ring in row.masks], mask.shape)
    assert (rle_to_mask(filled) == mask).all()
    detections = to_detections(prediction_of(mask))
    assert detections.xyxy.tolist() == [[1, 1, 10, 10]]  # inclusive: 10 wide, not 9
    assert detections.area.tolist() == [mask.sum()]
    torch = pytest.importorskip("torch")
    [zero], _ = logits_to_rles(torch.zeros(1, 4, 4), (4, 4), threshold=0.0)
    assert zero.counts.tolist() == [16]  # a logit of exactly 0 is background


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "mask"},
        {"sam2_version_id": "../etc"},
        {"model_version": "3.0"},
        {"prompts": [{"box": {"x": float("nan"), "y": 1, "width": 2, "height": 2}}]},
        {"prompts": [{"box": {"x": 1, "y": 1, "width": -2, "height": 2}}]},
        {"prompts": [{"points": [{"x": float("inf"), "y": 1, "positive": True}]}]},
        {"tolerance": -1},
        {"min_confidence": 2},
    ],
)
def test_defect_14_fields_are_validated(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Sam2SegmentationRequest(image=as_request(PICTURE), **fields)


@EVERY_WAY
def test_defect_15_many_threads_and_requests_embed_an_image_once(make_service):
    service = make_service()
    executor = service.models.default
    start = threading.Barrier(8)

    def work():
        start.wait()
        for seed in range(20):
            executor.embed([picture(seed % 5)])
            executor.cache_stats()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()

    async def ask():
        requests = [
            Sam2SegmentationRequest(image=as_request(picture(seed % 5)), prompts=[box(1, 1, 9, 9)])
            for seed in range(20)
        ]
        return await asyncio.gather(*(service.segment(request) for request in requests))

    answers = asyncio.run(ask())
    for thread in threads:
        thread.join()
    assert all(len(answer.predictions) == 1 for answer in answers)
    assert executor.cache_stats().misses == 5


class Loot:
    taken = False

    def __reduce__(self):
        return setattr, (Loot, "taken", True)


def test_defect_16_no_server_path_is_read_and_nothing_is_unpickled(make_service, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    with pytest.raises(ImageRefusedError, match="switched off"):
        segment(make_service(), {"type": "file", "value": str(secret)})
    with pytest.raises(ImageRefusedError, match="switched off"):
        segment(make_service(), {"type": "numpy", "value": "AAAA"})
    with pytest.raises(ImageRefusedError, match=r"not a \.npy file"):
        segment(make_service(allow_numpy=True), {"type": "numpy", "value": pickle.dumps(Loot())})
    assert not Loot.taken

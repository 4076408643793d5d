"""What else an executor can do, on a CUDA device: tracks, masks without prompts, a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sam2_blocks import segment
from sam2_blocks.errors import ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.masks.rle import coco_to_rle, rle_iou, rle_to_mask
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service import ServedModels, Service, ServiceSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, Prompt, PromptSet, Tracks
from tests.executor.sam2.official_video import (
    box_of,
    load_tracking,
    official,
    propagate,
    write_clip,
)
from tests.executor.transformers.test_detector import DETECTORS, by_hand
from tests.service.conftest import as_request, box, fresh, library_call

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda:0"
FRAMES = 12
OBJECTS = (0, 1, 4)
LOGIT_TOLERANCE = 1e-3
FLIPPED_PX_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def on_gpu() -> Callable[..., Sam2Executor]:
    """The embedded model with its weights."""
    return lambda **options: load("nano", device=DEVICE, **options)


@pytest.fixture
def float32_convolutions(monkeypatch) -> None:
    """Torch lets convolutions use TF32 unless told otherwise, for the official predictor too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def boxes() -> list[Prompt]:
    return [Prompt(box_xyxy=box_of(k, 0)) for k in OBJECTS]


def follow(executor: Sam2Executor, images: list[Image]) -> list[Tracks]:
    with executor.track() as session:
        return list(track_frames(session, images, boxes()))


# Tracks.


@pytest.mark.parametrize("name", ["nano", "hiera_tiny"])
def test_tracks_equal_the_official_predictors(float32_convolutions, name, video_class, tmp_path):
    images = write_clip(tmp_path, FRAMES)
    executor = load_tracking(name, tmp_path, device=DEVICE)
    found = follow(executor, images)
    predictor = official(video_class, executor)
    state = predictor.init_state(str(tmp_path))
    for key, prompt in enumerate(boxes(), 1):
        predictor.add_new_points_or_box(state, 0, key, box=prompt.box_xyxy)
    flipped = []
    for frame, expected in propagate(predictor, state, 0, FRAMES - 1):
        ours = found[frame].prediction
        for row, (logits, mask) in enumerate(expected.values()):
            error = np.abs(ours.low_res_logits[row] - np.clip(logits, -32, 32)).max()
            assert error <= LOGIT_TOLERANCE, f"frame {frame}, object {row}: {error:.1e}"
            flipped.append((rle_to_mask(ours.rles[row]) != mask).mean())
    assert len(flipped) == FRAMES * len(OBJECTS)
    assert np.mean(flipped) <= FLIPPED_PX_TOLERANCE, flipped


@pytest.mark.parametrize("options", [{"mode": "fast"}, {"dtype": "float16"}])
def test_fast_tracks_are_close_to_strict_ones(on_gpu, options, tmp_path):
    images = write_clip(tmp_path, FRAMES)
    strict, fast = (follow(on_gpu(**o), images) for o in ({}, options))
    pairs = [
        rle_iou(a, b)
        for ours, theirs in zip(fast, strict, strict=True)
        for a, b in zip(ours.prediction.rles, theirs.prediction.rles, strict=True)
    ]
    assert np.mean(pairs) >= 0.9, sorted(pairs)[:5]


def test_sessions_that_take_turns_do_not_mix(on_gpu, tmp_path):
    images = write_clip(tmp_path, FRAMES)
    executor = on_gpu(mode="fast")
    alone = follow(executor, images)
    with executor.track() as first, executor.track() as second:
        for frame, image in enumerate(images):
            tracks = [s.step(image, None if frame else boxes()) for s in (first, second)]
            for one in tracks:
                for a, b in zip(one.prediction.rles, alone[frame].prediction.rles, strict=True):
                    assert rle_iou(a, b) >= 0.99


# Masks without prompts.


def test_masks_without_prompts_are_those_of_the_cpu(float32_convolutions, on_gpu, pictures):
    settings = AutomaticSettings(points_per_side=8, pred_iou_thresh=0.3, stability_score_thresh=0.5)
    found = []
    for executor in (on_gpu(), load("nano", device="cpu", backend="torch")):
        [embedding] = executor.embed([pictures["photo"]])
        found.append(generate_masks(executor, embedding, settings).prediction.rles)
    on_gpus, on_cpus = found
    assert len(on_cpus) > 1
    assert abs(len(on_gpus) - len(on_cpus)) <= 1  # one whose score is at the threshold
    best = [max(rle_iou(rle, other) for other in on_gpus) for rle in on_cpus]
    assert np.median(best) >= 0.999, sorted(best)


# Embeddings that move.


def test_an_embedding_that_was_on_the_host_gives_the_same_masks(on_gpu, pictures):
    """Two pictures take turns in room for one: each comes back from the host's memory."""
    [one] = on_gpu().embed([pictures["photo"]])
    executor = on_gpu(cache_bytes=one.nbytes)
    first, second = (ask(executor, pictures[name]) for name in ("photo", "odd"))
    for _ in range(2):
        assert np.array_equal(ask(executor, pictures["photo"]), first)
        assert np.array_equal(ask(executor, pictures["odd"]), second)
    assert executor.cache_stats().misses == 2


def ask(executor: Sam2Executor, image: Image) -> np.ndarray:
    [embedding] = executor.embed([image])
    prompts = PromptSet.from_boxes(np.array([[100, 100, 300, 300]], np.float32))
    return executor.segment([(embedding, prompts)])[0].low_res_logits


def test_memory_of_the_device_does_not_grow_with_pictures(on_gpu):
    executor = on_gpu(cache_bytes=4 * 2**20)
    rng = np.random.default_rng(0)

    def after(count: int) -> int:
        for _ in range(count):
            ask(executor, Image(rng.integers(0, 255, (320, 320, 3), np.uint8)))
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    settled = after(20)
    assert after(60) <= settled + 2**20


# A service, a function, a detector.


def test_requests_at_once_get_what_the_library_answers(on_gpu, pictures):
    executor = on_gpu()
    images = [pictures["photo"], pictures["odd"]]
    prompts = [box(50, 60, 250, 260), box(100, 10, 400, 300)]
    expected = [library_call(executor, prompts, image).rles for image in images]
    service = Service(ServedModels({"nano": fresh(executor)}), ServiceSettings())

    async def together() -> list:
        requests = [
            {"image": as_request(image), "prompts": prompts, "format": "rle"}
            for image in images * 8
        ]
        parsed = map(Sam2SegmentationRequest.model_validate, requests)
        return await asyncio.gather(*map(service.segment, parsed))

    try:
        answers = asyncio.run(together())
    finally:
        service.close()
    for answer, rles in zip(answers, expected * 8, strict=True):
        found = [coco_to_rle(row.masks) for row in answer.predictions]
        assert min(rle_iou(a, b) for a, b in zip(found, rles, strict=True)) >= 0.9999


def test_a_picture_and_boxes_to_detections(pictures):
    corners = np.array([[50, 60, 250, 260], [100, 10, 400, 300]], np.float32)
    on_gpu, on_cpu = (
        segment(pictures["photo"].pixels, corners, device=device) for device in (DEVICE, "cpu")
    )
    assert np.mean(on_gpu.mask != on_cpu.mask) <= 1e-4


def test_tracks_on_the_cpu_of_a_machine_that_has_a_gpu(tmp_path):
    """Upstream puts some of a network's numbers on the GPU, wherever the weights are."""
    images = write_clip(tmp_path, 3)
    found = follow(load("nano", device="cpu", backend="torch"), images)
    assert [len(tracks.tracker_id) for tracks in found] == [len(OBJECTS)] * 3
    assert any(rle_to_mask(rle).any() for rle in found[-1].prediction.rles)


def test_what_runs_on_a_cpu_alone_says_so():
    with pytest.raises(ModelError, match="'openvino' computes on the CPU, not on 'cuda:0'"):
        load("nano", device=DEVICE, backend="openvino")


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_finds_what_the_library_finds_there(name, tiny_detector, pictures):
    loading = pytest.importorskip("sam2_blocks.executor.transformers.loading")
    images = [pictures["photo"], pictures["odd"]]
    detector = loading.load(str(tiny_detector(name)), device=DEVICE)
    found = detector.detect(images, threshold=0.2)
    expected = by_hand(tiny_detector(name), images, 0.2, device=DEVICE)
    assert sum(map(len, found)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.confidence, theirs["scores"].cpu().numpy(), atol=1e-4)
        np.testing.assert_allclose(ours.boxes_xyxy, theirs["boxes"].cpu().numpy(), atol=0.1)

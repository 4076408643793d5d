"""The same masks as the official SAM2ImagePredictor: same weights, float32, CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.preprocess import pixels_to_input
from sam2_blocks.values import Embedding, Image, MaskPrediction, Prompt, PromptSet, Rle
from tests.executor.conftest import NEEDS_OPENVINO, SEED

# The official predictor scripts its transforms.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

LOGIT_TOLERANCE = 1e-4
IOU_TOLERANCE = 1e-5
FLIPPED_PX_TOLERANCE = 1e-5

SIZES_WH = [(640, 480), (1279, 853), (480, 1920)]


def official_predictor(official_class: type, executor: Sam2Executor, embedding: Embedding):
    """The official predictor in the state its own `set_image` would leave it in."""
    predictor = official_class(executor.model.network)
    predictor._features = {
        "image_embed": embedding.image_embed,
        "high_res_feats": list(embedding.high_res_feats),
    }
    predictor._orig_hw = [embedding.image_hw]
    predictor._is_image_set = True
    return predictor


def resized(embedding: Embedding, size_wh: tuple[int, int]) -> Embedding:
    """The features of a picture of another shape: the encoder sees a square anyway."""
    return replace(embedding, image_hw=size_wh[::-1])


def boxes_in(size_wh: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (count, 2, 2)) * size_wh
    return np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)


def points_in(size_wh: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    coords = (rng.uniform(0, 1, (count, 2)) * size_wh).astype(np.float32)
    return coords, np.arange(count, dtype=np.int32) % 2


def assert_same(
    ours: MaskPrediction, masks: np.ndarray, iou: np.ndarray, logits: np.ndarray
) -> None:
    """Compare with official arrays (N, M, H, W), (N, M) and (N, M, h, w)."""
    best = iou.argmax(1)
    rows = np.arange(len(best))
    logit_error = np.abs(ours.low_res_logits - logits[rows, best]).max()
    iou_error = np.abs(ours.iou_prediction - iou[rows, best]).max()
    flipped = [
        flipped_px(rle, mask) for rle, mask in zip(ours.rles, masks[rows, best], strict=True)
    ]
    worst = max(flipped) / masks[0, 0].size
    figures = (
        f"low-res logits differ by {logit_error:.2e}, predicted IoU by {iou_error:.2e}, "
        f"flipped pixels a mask {flipped} ({worst:.1e} of the picture at worst)"
    )
    assert logit_error <= LOGIT_TOLERANCE, figures
    assert iou_error <= IOU_TOLERANCE, figures
    assert worst <= FLIPPED_PX_TOLERANCE, figures


def flipped_px(rle: Rle, mask: np.ndarray) -> int:
    """Pixels that differ; 0 exactly when the run lengths are byte for byte those of pycocotools."""
    official = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    uncompressed = {"size": list(rle.size), "counts": rle.counts.tolist()}
    if coco.frPyObjects(uncompressed, *rle.size)["counts"] == official["counts"]:
        return 0
    values = np.arange(len(rle.counts)) % 2
    decoded = np.repeat(values, rle.counts).reshape(rle.size, order="F")
    return int((decoded != mask).sum())


@pytest.mark.parametrize("name", ["photo", "odd", "panorama"])
def test_preprocessing_equals_torchvision(name, pictures, official_class, tiny):
    transforms = official_class(tiny.model.network)._transforms
    official = transforms(pictures[name].pixels)
    ours = pixels_to_input(pictures[name].pixels, 1024, torch.device("cpu"))
    assert torch.equal(ours, official), f"differs by {(ours - official).abs().max():.2e}"


@pytest.fixture(scope="module")
def tiny_official(tiny, pictures, official_class):
    predictor = official_class(tiny.model.network)
    predictor.set_image(pictures["photo"].pixels)
    return predictor


@pytest.fixture(scope="module")
def small_official(small, pictures, official_class):
    predictor = official_class(small.model.network)
    predictor.set_image(pictures["odd"].pixels)
    return predictor


@pytest.mark.parametrize(("model", "name"), [("tiny", "photo"), ("small", "odd")])
def test_embeddings_equal_set_image(model, name, request, pictures):
    embedding: Embedding = request.getfixturevalue(f"{model}_embedding")
    predictor = request.getfixturevalue(f"{model}_official")
    assert embedding.image_hw == pictures[name].pixels.shape[:2]
    official = [predictor._features["image_embed"], *predictor._features["high_res_feats"]]
    ours = [embedding.image_embed, *embedding.high_res_feats]
    errors = [float((a - b).abs().max()) for a, b in zip(ours, official, strict=True)]
    assert max(errors) <= 1e-5, f"levels differ by {errors}"


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize(
    ("model", "count", "size_wh"),
    [*(("tiny", 3, size_wh) for size_wh in SIZES_WH), ("small", 2, SIZES_WH[1])],
)
def test_boxes(model, count, size_wh, multimask_output, request, official_class):
    executor: Sam2Executor = request.getfixturevalue(model)
    embedding = resized(request.getfixturevalue(f"{model}_embedding"), size_wh)
    boxes = boxes_in(size_wh, count)
    masks, iou, logits = official_predictor(official_class, executor, embedding).predict(
        box=boxes, multimask_output=multimask_output
    )
    [ours] = executor.segment(
        [(embedding, PromptSet.from_boxes(boxes))], multimask_output=multimask_output
    )
    assert_same(ours, masks, iou, logits)


def test_twenty_boxes(tiny, tiny_embedding, official_class):
    boxes = boxes_in((640, 480), 20, seed=3)
    predictor = official_predictor(official_class, tiny, tiny_embedding)
    masks, iou, logits = predictor.predict(box=boxes)
    [ours] = tiny.segment([(tiny_embedding, PromptSet.from_boxes(boxes))])
    assert_same(ours, masks, iou, logits)


@NEEDS_OPENVINO
def test_openvino_from_the_picture_on(tiny_official, pictures):
    """The whole way at 1024 px, encoder included: what `strict` promises with this backend, too."""
    ours = load("sam2.1/hiera_tiny", device="cpu", seed=SEED, backend="openvino")
    boxes = boxes_in(SIZES_WH[0], 8, seed=5)
    masks, iou, logits = tiny_official.predict(box=boxes)
    [embedding] = ours.embed([pictures["photo"]])
    [found] = ours.segment([(embedding, PromptSet.from_boxes(boxes))])
    assert embedding.spec.backend == "openvino"
    assert_same(found, masks, iou, logits)


PROMPTS = {
    "one point": ("points", 1),
    "five points": ("points", 5),
    "box and point": ("box points", 1),
    "box and four points": ("box points", 4),
    "mask": ("mask", 0),
    "mask and points": ("points mask", 2),
    "mask, box and points": ("box points mask", 3),
}


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("case", PROMPTS)
def test_single_prompts(case, multimask_output, tiny, tiny_embedding, official_class):
    size_wh = (1279, 853)
    embedding = resized(tiny_embedding, size_wh)
    parts, count = PROMPTS[case]
    coords, labels = points_in(size_wh, count) if "points" in parts else (None, None)
    box = boxes_in(size_wh, 1)[0] if "box" in parts else None
    mask = smooth_logits() if "mask" in parts else None
    masks, iou, logits = official_predictor(official_class, tiny, embedding).predict(
        coords, labels, box, mask, multimask_output=multimask_output
    )
    prompt = Prompt(box, coords, labels, mask)
    [ours] = tiny.segment([(embedding, PromptSet((prompt,)))], multimask_output=multimask_output)
    assert_same(ours, masks[None], iou[None], logits[None])


def test_all_candidates(small, small_embedding, official_class):
    boxes = boxes_in((1279, 853), 2)
    predictor = official_predictor(official_class, small, small_embedding)
    masks, iou, logits = predictor.predict(box=boxes)
    [ours] = small.segment([(small_embedding, PromptSet.from_boxes(boxes))], return_candidates=True)
    assert ours.candidates is not None
    np.testing.assert_allclose(ours.candidates.iou_prediction, iou, atol=IOU_TOLERANCE)
    np.testing.assert_allclose(ours.candidates.low_res_logits, logits, atol=LOGIT_TOLERANCE)
    flipped = [
        flipped_px(rle, mask)
        for rles, three in zip(ours.candidates.rles, masks, strict=True)
        for rle, mask in zip(rles, three, strict=True)
    ]
    assert max(flipped) <= FLIPPED_PX_TOLERANCE * masks[0, 0].size, f"flipped pixels: {flipped}"


def test_threshold_applies_to_logits(tiny, tiny_embedding, official_class):
    boxes = boxes_in((640, 480), 1)
    predictor = official_predictor(official_class, tiny, tiny_embedding)
    predictor.mask_threshold = 0.02
    masks, iou, logits = predictor.predict(box=boxes)
    [ours] = tiny.segment([(tiny_embedding, PromptSet.from_boxes(boxes))], mask_threshold=0.02)
    assert_same(ours, masks[None], iou[None], logits[None])


def smooth_logits() -> np.ndarray:
    """Logits of a disc, as an earlier prediction might have left them."""
    y, x = np.mgrid[:256, :256]
    return (10 - np.hypot(x - 120, y - 100) / 5).astype(np.float32)[None]


def test_end_to_end_from_pixels(nano, pictures: dict[str, Image], official_class):
    """Nothing injected: `set_image` and `predict` against `embed` and `segment`."""
    if nano.mode != "strict":
        pytest.skip("int8 promises no equal masks")
    predictor = official_class(load("nano", device="cpu", seed=SEED, backend="torch").model.network)
    side = nano.model.image_size
    predictor._bb_feat_sizes = [(side // n, side // n) for n in (4, 8, 16)]  # hard coded upstream
    for picture in pictures.values():
        boxes = boxes_in(picture.hw[::-1], 4)
        predictor.set_image(picture.pixels)
        masks, iou, logits = predictor.predict(box=boxes)
        [embedding] = nano.embed([picture])
        [ours] = nano.segment([(embedding, PromptSet.from_boxes(boxes))])
        assert_same(ours, masks, iou, logits)

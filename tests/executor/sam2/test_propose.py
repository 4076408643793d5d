"""The same masks without prompts as the official SAM2AutomaticMaskGenerator, float32, CPU."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.propose import stability_scores
from sam2_blocks.executors import MaskProposer
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.options import AutomaticSettings, CropSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.crops import generate_masks_in_crops
from sam2_blocks.values import AutomaticMasks, Embedding, Image, PromptSet

# The official predictor scripts its transforms.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

FLIPPED_PX_TOLERANCE = 1e-5

LOOSE = AutomaticSettings(
    points_per_side=5,
    pred_iou_thresh=0.3,
    stability_score_thresh=0.5,
    stability_score_offset=0.5,
)


def nms(boxes, scores, categories, iou_threshold):
    """What torchvision's compiled library does, box by box; all boxes are of one category."""
    assert not categories.any()
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if all(box_iou(boxes[index], boxes[other]) <= iou_threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def box_iou(first, second):
    width = (torch.minimum(first[2], second[2]) - torch.maximum(first[0], second[0])).clamp(0)
    height = (torch.minimum(first[3], second[3]) - torch.maximum(first[1], second[1])).clamp(0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (area[0] + area[1] - width * height)


@pytest.fixture
def generator(official_class, monkeypatch):
    """``generator(executor, settings)``: the official one, on the executor's network."""
    from sam2 import automatic_mask_generator as official

    monkeypatch.setattr(official, "batched_nms", nms)

    def make(
        executor: Sam2Executor, settings: AutomaticSettings, crops: CropSettings | None = None
    ):
        made = official.SAM2AutomaticMaskGenerator(
            executor.model.network,
            output_mode="uncompressed_rle",
            **asdict(settings),
            **asdict(crops or CropSettings()),
        )
        low_res = executor.model.low_res_hw  # hard coded for 1024 upstream
        made.predictor._bb_feat_sizes = [tuple(n // 2**i for n in low_res) for i in range(3)]
        return made

    return make


@pytest.fixture(scope="module")
def trained() -> Sam2Executor:
    return load("nano", device="cpu")


def assert_same(ours: AutomaticMasks, official: list[dict]) -> None:
    """Same masks in the same order.

    Other chunks of points round sums in another order, so a pixel may flip where a logit is 0.
    """
    assert len(ours) == len(official)
    flipped = [
        np.count_nonzero(rle_to_mask(rle) != rle_to_mask(coco_to_rle(row["segmentation"])))
        for rle, row in zip(ours.prediction.rles, official, strict=True)
    ]
    height, width = ours.prediction.image_hw
    assert max(flipped) <= FLIPPED_PX_TOLERANCE * height * width, f"flipped pixels: {flipped}"
    columns = {
        "predicted_iou": (ours.prediction.iou_prediction, 1e-5),
        "stability_score": (ours.stability_score, 1e-4),
        "point_coords": (ours.point_xy[:, None], 0),
    }
    for name, (column, tolerance) in columns.items():
        expected = np.array([row[name] for row in official], np.float32)
        np.testing.assert_allclose(column, expected, atol=tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("name", "multimask_output"),
    [("photo", True), ("photo", False), ("odd", True), ("panorama", True)],
)
def test_trained_weights(name, multimask_output, trained, pictures, generator):
    settings = replace(LOOSE, multimask_output=multimask_output)
    picture: Image = pictures[name]
    official = generator(trained, settings).generate(picture.pixels)
    [embedding] = trained.embed([picture])
    ours = generate_masks(trained, embedding, settings)
    assert len(ours) > 1
    assert_same(ours, official)


@pytest.mark.parametrize(
    ("name", "crops"),
    [
        ("photo", CropSettings(crop_n_layers=1, crop_n_points_downscale_factor=2)),
        ("panorama", CropSettings(2, 0.5, 0.2, crop_n_points_downscale_factor=2)),
    ],
)
def test_crops(name, crops, trained, pictures, generator):
    picture: Image = pictures[name]
    official = generator(trained, LOOSE, crops).generate(picture.pixels)
    ours = generate_masks_in_crops(trained, picture, LOOSE, crops)
    assert len({tuple(row["crop_box"]) for row in official}) > 1
    assert_same(ours, official)


def test_a_public_architecture(tiny, pictures, tiny_embedding, generator):
    """Logits of random weights lie near zero, so the thresholds do too."""
    settings = AutomaticSettings(
        points_per_side=2,
        pred_iou_thresh=0,
        stability_score_thresh=0.93,
        stability_score_offset=0.002,
        mask_threshold=0.01,
        box_nms_thresh=1,
    )
    official = generator(tiny, settings).generate(pictures["photo"].pixels)
    ours = generate_masks(tiny, tiny_embedding, settings)
    assert 1 < len(ours) < 12
    assert_same(ours, official)


def test_stability_is_measured_at_full_size():
    """As the official score is; at low resolution it would be another number."""
    y, x = np.mgrid[:64, :64]
    logits = torch.from_numpy((6 - np.hypot(x - 30, y - 20)).astype(np.float32))[None]
    settings = AutomaticSettings()
    full = torch.nn.functional.interpolate(logits[None], (300, 400), mode="bilinear")[0]
    expected = (full > 1).sum() / (full > -1).sum()
    at_low_resolution = (logits > 1).sum() / (logits > -1).sum()
    [score] = stability_scores(logits, (300, 400), settings)
    assert score == expected
    assert abs(float(score - at_low_resolution)) > 1e-3


def test_nothing_passes_filters_that_are_too_strict(nano, nano_embedding):
    found = generate_masks(
        nano, nano_embedding, AutomaticSettings(points_per_side=2, pred_iou_thresh=1)
    )
    assert len(found) == 0
    assert found.prediction.low_res_logits.shape == (0, 0, 0)
    assert found.prediction.mask_box_xyxy.shape == (0, 4)
    assert found.point_xy.shape == (0, 2)


def test_logits_are_those_of_the_masks(trained, pictures):
    [embedding] = trained.embed([pictures["photo"]])
    found = generate_masks(trained, embedding, LOOSE, return_logits=True)
    logits = torch.from_numpy(found.prediction.low_res_logits)
    assert logits.shape == (len(found), *trained.model.low_res_hw)
    rles, _ = logits_to_rles(logits, embedding.image_hw)
    for rle, expected in zip(rles, found.prediction.rles, strict=True):
        assert np.array_equal(rle.counts, expected.counts)


def test_small_regions_are_cleaned(nano, nano_embedding: Embedding):
    """In low-resolution pixels, before stability is measured, like the official generator."""
    point = np.array([[300, 200]], np.float32)
    every = AutomaticSettings(pred_iou_thresh=0, stability_score_thresh=0)
    raw = nano.propose_masks(nano_embedding, point, every)
    clean = nano.propose_masks(nano_embedding, point, replace(every, min_mask_region_area=20))
    prompts = PromptSet.from_points(point)
    [expected] = nano.segment(
        [(nano_embedding, prompts)],
        max_hole_area=20,
        max_sprinkle_area=20,
        return_candidates=True,
    )
    assert expected.candidates is not None
    for ours, rle in zip(clean.prediction.rles, expected.candidates.rles[0], strict=True):
        assert np.array_equal(ours.counts, rle.counts)
    assert len(clean.prediction.rles[0].counts) < len(raw.prediction.rles[0].counts)


def test_an_embedding_of_another_model_is_refused(trained, nano_embedding):
    with pytest.raises(ValueError, match="was made by 'nano@seed-7/float32"):
        generate_masks(trained, nano_embedding, LOOSE)


def test_implements_the_protocol(nano):
    assert isinstance(nano, MaskProposer)

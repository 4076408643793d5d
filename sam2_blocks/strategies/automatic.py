"""Masks of everything in a picture, without prompts: a grid of points, filters, suppression.

An executor does what needs the model, one batch of points at a time (`MaskProposer`), so that
others get their turn in between; the rest is here, in numpy. At no time is there a full-size mask:
what waits for the suppression are run lengths and boxes.

The masks, and their order, are those of the official generator on the whole picture; its crops are
in `crops`. Left out are its second pass (``use_m2m``) and grids of other shapes.

Source: sam2 ``automatic_mask_generator.py``, ``utils/amg.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from sam2_blocks.executors import Executor, MaskProposer, require
from sam2_blocks.masks.boxes import suppress_boxes
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.values import AutomaticMasks, Embedding, Float32Array, Hw, MaskPrediction

POINTS_PER_BATCH = 32


def generate_masks(
    executor: Executor,
    embedding: Embedding,
    settings: AutomaticSettings | None = None,
    *,
    return_logits: bool = False,
) -> AutomaticMasks:
    """Find the masks of everything in a picture.

    Args:
        executor: the one that made the embedding.
        embedding: the picture.
        settings: grid and thresholds; those of the official generator if not given.
        return_logits: keep the low-resolution logits; those of every mask that passes the filters
            are held until the end.

    Returns:
        The masks, those with the highest predicted IoU first.

    Raises:
        ModelError: if the executor cannot segment without prompts.
        TypeError: if it is no embedding.
        ValueError: if a setting is out of its range.

    Example:
        >>> executor = load_executor("nano", device="cpu")
        >>> [embedding] = executor.embed([read_image("examples/pictures/coffee.jpg")])
        >>> settings = AutomaticSettings(8, pred_iou_thresh=0.6, stability_score_thresh=0.6)
        >>> len(generate_masks(executor, embedding, settings)) > 1
        True
    """
    if not isinstance(embedding, Embedding):
        raise TypeError(
            f"wants the Embedding of a picture, got {type(embedding).__name__}. Encode it first: "
            "[embedding] = executor.embed([image])."
        )
    settings = settings or AutomaticSettings()
    proposer = require(executor, MaskProposer)
    batches = propose_batches(proposer, embedding, settings, return_logits=return_logits)
    return join_masks(list(batches), settings)


def propose_batches(
    proposer: MaskProposer,
    embedding: Embedding,
    settings: AutomaticSettings,
    *,
    return_logits: bool = False,
) -> Iterator[AutomaticMasks]:
    """Find masks batch by batch of the grid's points, before suppression.

    Args:
        proposer: made the embedding.
        embedding: of the picture.
        settings: grid and thresholds.
        return_logits: keep the low-resolution logits.

    Yields:
        The masks of one batch of points that pass the filters, perhaps none.

    Raises:
        ValueError: if a setting is out of its range.
    """
    _check_ranges(settings)
    for points_xy in point_batches(settings.points_per_side, embedding.image_hw):
        yield proposer.propose_masks(embedding, points_xy, settings, return_logits=return_logits)


def _check_ranges(settings: AutomaticSettings) -> None:
    for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} wants 0 to 1, got {value}")
    for name in ("stability_score_offset", "min_mask_region_area"):
        value = getattr(settings, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} wants 0 or more, got {value}")
    if not math.isfinite(settings.mask_threshold):
        raise ValueError(f"mask_threshold wants a finite number, got {settings.mask_threshold}")
    if not settings.points_per_side >= 1:
        raise ValueError(f"points_per_side wants 1 or more, got {settings.points_per_side}")


def point_batches(points_per_side: int, image_hw: Hw) -> Iterator[Float32Array]:
    """Lay a square grid of points evenly over a picture.

    Args:
        points_per_side: of the grid.
        image_hw: size of the picture in pixels.

    Yields:
        float32, (P, 2), xy in pixels, row by row; P is at most `POINTS_PER_BATCH`.
    """
    height, width = image_hw
    offset = 1 / (2 * points_per_side)
    steps = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(steps * width, steps * height)
    points_xy = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    for start in range(0, len(points_xy), POINTS_PER_BATCH):
        yield points_xy[start : start + POINTS_PER_BATCH]


def join_masks(batches: Sequence[AutomaticMasks], settings: AutomaticSettings) -> AutomaticMasks:
    """Gather the masks of all batches of one picture and drop duplicates.

    Args:
        batches: at least one.
        settings: say how much boxes of two masks may overlap.

    Returns:
        The masks that are kept, those with the highest predicted IoU first.
    """
    together = concatenate_masks(batches)
    prediction = together.prediction
    return together.select(
        suppress_boxes(
            prediction.mask_box_xyxy,
            prediction.iou_prediction,
            iou_threshold=settings.box_nms_thresh,
        )
    )


def concatenate_masks(batches: Sequence[AutomaticMasks]) -> AutomaticMasks:
    """Gather masks of one picture in their order; at least one batch."""
    return AutomaticMasks(
        prediction=MaskPrediction.concatenate([batch.prediction for batch in batches]),
        point_xy=np.concatenate([batch.point_xy for batch in batches]),
        stability_score=np.concatenate([batch.stability_score for batch in batches]),
    )

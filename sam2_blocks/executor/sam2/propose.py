"""A chunk of clicks to the masks worth keeping, for segmentation without prompts.

The filters see what the official generator shows them: stability is measured at full size, but
inside the mask's own region, and only survivors are encoded.

Source: sam2 ``automatic_mask_generator.py: _process_batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam2_blocks.executor.rle.components import clean_logits
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.executor.sam2.answer import LOGIT_LIMIT
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.rows import PromptRow
from sam2_blocks.masks.rle import rle_area
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.values import AutomaticMasks, Float32Array, Hw, Int64Array, MaskPrediction, Rle


@dataclass(frozen=True, eq=False)
class Proposal:
    """One mask that passed the filters, on the host.

    Attributes:
        rle: the mask at original size.
        box_xyxy: int64, (4,), its tight box.
        iou: float32, predicted IoU.
        stability: float32, stability score.
        logits: float32, (h, w), clamped; (0, 0) unless wanted.
    """

    rle: Rle
    box_xyxy: Int64Array
    iou: np.float32
    stability: np.float32
    logits: Float32Array


def propose_chunk(
    decoder: Decoder,
    rows: Sequence[PromptRow],
    settings: AutomaticSettings,
    *,
    return_logits: bool,
) -> list[list[Proposal]]:
    """Decode clicks on one image and filter their masks; safe to call from several threads.

    Args:
        decoder: of the model.
        rows: clicks, all on one picture.
        settings: thresholds of the filters.
        return_logits: keep the low-resolution logits.

    Returns:
        For each row the masks that passed, in the order of the mask tokens.
    """
    image_hw = rows[0].embedding.image_hw
    with torch.inference_mode():
        logits, iou = decoder.decode(rows, multimask_output=settings.multimask_output)
        sure = iou > settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else iou == iou
        owners, tokens = sure.nonzero(as_tuple=True)
        logits, iou = logits[owners, tokens], iou[owners, tokens]  # (K, h, w), (K,)
        cleaned = clean_logits(
            logits,
            threshold=settings.mask_threshold,
            max_hole_area=settings.min_mask_region_area,
            max_sprinkle_area=settings.min_mask_region_area,
        )
        stability = stability_scores(cleaned, image_hw, settings)
        kept = _stable(stability, settings.stability_score_thresh)
        index = torch.from_numpy(kept).to(logits.device)
        rles, boxes = logits_to_rles(cleaned[index], image_hw, threshold=settings.mask_threshold)
        low_res = logits[index] if return_logits else logits.new_zeros(len(kept), 0, 0)
        columns = (rles, boxes, _to_host(iou[index]), stability[kept], _clamp_to_host(low_res))
    proposals: list[list[Proposal]] = [[] for _ in rows]
    for owner, *values in zip(owners[index].tolist(), *columns, strict=True):
        proposals[owner].append(Proposal(*values))
    return proposals


def stability_scores(logits: Tensor, image_hw: Hw, settings: AutomaticSettings) -> Float32Array:
    """Compare each mask at a higher threshold with itself at a lower one, at full size.

    Args:
        logits: float32, (K, h, w).
        image_hw: size of the original picture in pixels.
        settings: threshold and offset.

    Returns:
        float32, (K,), IoU of the two masks, one of which lies inside the other; NaN if both are
        empty.

    Source: sam2 ``utils/amg.py: calculate_stability_score``.
    """
    offset = settings.stability_score_offset
    smaller, larger = (
        _areas(logits, image_hw, settings.mask_threshold + shift) for shift in (offset, -offset)
    )
    with np.errstate(invalid="ignore"):
        scores: Float32Array = smaller / larger
    return scores


def gather_proposals(
    proposals: Sequence[Sequence[Proposal]],
    points_xy: Float32Array,
    image_hw: Hw,
    low_res_hw: Hw,
) -> AutomaticMasks:
    """Gather the proposals of one image, of which there may be none.

    Args:
        proposals: the masks of each point that passed the filters.
        points_xy: float32, (P, 2), the points, pixels of the original picture.
        image_hw: size of the original picture in pixels.
        low_res_hw: of the logits; (0, 0) where they were not kept.
    """
    found = [proposal for of_point in proposals for proposal in of_point]
    prediction = MaskPrediction(
        image_hw=image_hw,
        rles=tuple(proposal.rle for proposal in found),
        iou_prediction=np.array([proposal.iou for proposal in found], np.float32),
        low_res_logits=np.array([p.logits for p in found], np.float32).reshape(
            len(found), *low_res_hw
        ),
        mask_box_xyxy=np.array([p.box_xyxy for p in found], np.int64).reshape(-1, 4),
    )
    return AutomaticMasks(
        prediction,
        point_xy=np.repeat(points_xy, [len(of_point) for of_point in proposals], axis=0),
        stability_score=np.array([proposal.stability for proposal in found], np.float32),
    )


def _areas(logits: Tensor, image_hw: Hw, threshold: float) -> Float32Array:
    rles, _ = logits_to_rles(logits, image_hw, threshold=threshold)
    return np.array([rle_area(rle) for rle in rles], np.float32)


def _stable(stability: Float32Array, threshold: float) -> Int64Array:
    passed = stability >= threshold if threshold > 0 else np.ones(len(stability), bool)
    return np.flatnonzero(passed)


def _to_host(values: Tensor) -> Float32Array:
    array: Float32Array = values.cpu().numpy()
    return array


def _clamp_to_host(logits: Tensor) -> Float32Array:
    return _to_host(logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))

"""A chunk of prompts all the way: decode, choose, clean, upsample, encode, bring to the host.

Chunks are independent of each other and hold prompts of one shape, of any images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sam2_blocks.executor.device.transfer import Download
from sam2_blocks.executor.rle.components import clean_logits
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.rows import PromptRow
from sam2_blocks.options import SegmentOptions
from sam2_blocks.values import Float32Array, Hw, Int64Array, MaskCandidates, MaskPrediction, Rle

LOGIT_LIMIT = 32.0  # low-resolution logits are handed out clamped, as the official predictor does


@dataclass(frozen=True, eq=False)
class SegmentedPrompt:
    """The answer to one prompt, on the host.

    Attributes:
        rle: the chosen mask at original size.
        box_xyxy: int64, (4,), its tight box.
        logits: float32, (h, w), clamped.
        iou: float32, (M,), predicted IoU of all candidates.
        candidate_rles: M masks at original size; empty unless wanted.
        candidate_logits: float32, (M, h, w); M is 0 unless wanted.
    """

    rle: Rle
    box_xyxy: Int64Array
    logits: Float32Array
    iou: Float32Array
    candidate_rles: tuple[Rle, ...]
    candidate_logits: Float32Array


def segment_chunk(
    decoder: Decoder,
    rows: Sequence[PromptRow],
    options: SegmentOptions,
    *,
    return_candidates: bool = False,
) -> list[SegmentedPrompt]:
    """Answer prompts of equal shape; safe to call from several threads.

    Args:
        decoder: of the model.
        rows: N of one `PromptRow.shape_key`; pictures may differ.
        options: of the masks.
        return_candidates: also keep all masks that were proposed.

    Returns:
        One answer a row, on the host.
    """
    with torch.inference_mode():
        logits, iou = decoder.decode(rows, multimask_output=options.multimask_output)
        chosen = logits[torch.arange(len(rows), device=iou.device), iou.argmax(1)]  # (N, h, w)
        wanted = logits if return_candidates else logits[:, :0]
        download = Download(_clamp(chosen), iou, _clamp(wanted))
        rles, boxes = _encode(chosen, [(row.item, row.embedding.image_hw) for row in rows], options)
        candidate_rles = _encode_candidates(wanted, rows, options)
        host_logits, host_iou, host_candidates = download.arrays()
    columns = (rles, boxes, host_logits, host_iou, candidate_rles, host_candidates)
    return [SegmentedPrompt(*values) for values in zip(*columns, strict=True)]


def gather_prediction(
    answers: Sequence[SegmentedPrompt],
    image_hw: Hw,
    low_res_hw: Hw,
    options: SegmentOptions,
    *,
    return_candidates: bool = False,
) -> MaskPrediction:
    """Gather the answers of one image, of which there may be none.

    Args:
        answers: N, in the order of the prompts.
        image_hw: size of the original picture in pixels.
        low_res_hw: of the logits, whose array has this size even for N = 0.
        options: that the prompts were answered with.
        return_candidates: whether they have candidates.
    """
    masks = 3 if options.multimask_output else 1
    iou = _stack([answer.iou for answer in answers], (masks,))
    candidates = None
    if return_candidates:
        candidates = MaskCandidates(
            rles=tuple(answer.candidate_rles for answer in answers),
            iou_prediction=iou,
            low_res_logits=_stack(
                [answer.candidate_logits for answer in answers], (masks, *low_res_hw)
            ),
        )
    return MaskPrediction(
        image_hw=image_hw,
        rles=tuple(answer.rle for answer in answers),
        iou_prediction=iou.max(1),
        low_res_logits=_stack([answer.logits for answer in answers], low_res_hw),
        mask_box_xyxy=np.array([a.box_xyxy for a in answers], np.int64).reshape(-1, 4),
        candidates=candidates,
    )


def _encode(
    logits: Tensor, images: Sequence[tuple[int, Hw]], options: SegmentOptions
) -> tuple[list[Rle], Int64Array]:
    """Clean, upsample and encode masks (K, h, w) of consecutive images, given for each mask."""
    if max(options.max_hole_area, options.max_sprinkle_area) > 0:
        logits = clean_logits(
            logits,
            threshold=options.mask_threshold,
            max_hole_area=options.max_hole_area,
            max_sprinkle_area=options.max_sprinkle_area,
        )
    rles: list[Rle] = []
    boxes: list[Int64Array] = []
    for (_, image_hw), same in groupby(images):
        part = logits[len(rles) : len(rles) + len(list(same))]
        encoded, bounds = logits_to_rles(part, image_hw, threshold=options.mask_threshold)
        rles += encoded
        boxes.append(bounds)
    return rles, np.concatenate(boxes)


def _encode_candidates(
    logits: Tensor, rows: Sequence[PromptRow], options: SegmentOptions
) -> list[tuple[Rle, ...]]:
    """Encode the candidates (N, M, h, w) that are wanted; M may be 0."""
    masks = logits.shape[1]
    if not masks:
        return [()] * len(rows)
    images = [(row.item, row.embedding.image_hw) for row in rows for _ in range(masks)]
    rles, _ = _encode(logits.flatten(0, 1), images, options)
    return [tuple(rles[i : i + masks]) for i in range(0, len(rles), masks)]


def _clamp(logits: Tensor) -> Tensor:
    return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def _stack(arrays: Sequence[Float32Array], shape: tuple[int, ...]) -> Float32Array:
    """Stack arrays of this shape; there may be none."""
    return np.stack(arrays) if arrays else np.zeros((0, *shape), np.float32)

"""Boxes, in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.masks.stopping import look_up
from sam2_blocks.values import Float32Array, Int64Array


def suppress_boxes(
    boxes_xyxy: Int64Array | Float32Array, scores: Float32Array, *, iou_threshold: float
) -> Int64Array:
    """Keep of boxes that overlap the one with the highest score.

    Args:
        boxes_xyxy: int64 or float32, (N, 4).
        scores: float32, (N,).
        iou_threshold: boxes overlap if their IoU is above.

    Returns:
        Indices of the boxes kept, the highest score first, equal scores in their order.

    Source: greedy non-maximum suppression as in ``torchvision.ops.nms``, in float32.
    """
    order = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1:
        return order
    x_min, y_min, x_max, y_max = boxes_xyxy[order].astype(np.float32).T.copy()
    areas = (x_max - x_min) * (y_max - y_min)
    suppressed = np.zeros(len(order), bool)
    for i in range(len(order)):
        if suppressed[i]:
            continue
        look_up()
        later = slice(i + 1, None)
        width = np.minimum(x_max[i], x_max[later]) - np.maximum(x_min[i], x_min[later])
        height = np.minimum(y_max[i], y_max[later]) - np.maximum(y_min[i], y_min[later])
        overlap = np.clip(width, 0, None) * np.clip(height, 0, None)
        with np.errstate(invalid="ignore"):  # two boxes without area: NaN, they do not overlap
            iou = overlap / (areas[i] + areas[later] - overlap)
        suppressed[later] |= iou > iou_threshold
    return order[~suppressed]


def box_iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Compute the intersection over union of two boxes.

    Args:
        first: (4,), xyxy, edges in pixels.
        second: (4,), likewise.

    Returns:
        0 to 1; 0 if both are without area.
    """
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    areas = [float(np.clip(box[2:] - box[:2], 0, None).prod()) for box in (first, second)]
    union = sum(areas) - shared
    return shared / union if union else 0.0


def covered_shares(boxes_xyxy: Float32Array, by_xyxy: Float32Array) -> Float32Array:
    """Say how much of each box is covered by each of some others.

    Args:
        boxes_xyxy: float, (N, 4).
        by_xyxy: float, (M, 4).

    Returns:
        float32, (N, M), 0 to 1; 0 for a box without area.
    """
    boxes, others = (np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes_xyxy, by_xyxy))
    overlap = _overlaps(boxes, others)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Float32Array = np.nan_to_num(overlap / areas, posinf=0).astype(np.float32)
    return shares


def box_ious(boxes_xyxy: Float32Array, others_xyxy: Float32Array) -> Float32Array:
    """Say how much each box overlaps each of some others.

    Args:
        boxes_xyxy: float, (N, 4).
        others_xyxy: float, (M, 4).

    Returns:
        float32, (N, M), intersection over union; 0 for two boxes without area.
    """
    boxes, others = (np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes_xyxy, others_xyxy))
    overlap = _overlaps(boxes, others)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others)]
    with np.errstate(invalid="ignore", divide="ignore"):
        ious = overlap / (areas[0][:, None] + areas[1][None] - overlap)
    clean: Float32Array = np.nan_to_num(ious, posinf=0).astype(np.float32)
    return clean


def _overlaps(boxes: Float32Array, others: Float32Array) -> Float32Array:
    """Areas that two boxes share, (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Float32Array = np.clip(high - low, 0, None).prod(axis=2)
    return shared

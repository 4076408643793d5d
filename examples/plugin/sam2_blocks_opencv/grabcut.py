"""``opencv/grabcut@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks import masks_to_prediction, to_detections


class GrabCut:
    """Cut the object of each box out of its background by colour."""

    def __init__(self, resources: object) -> None:
        pass

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"predictions": _segment(item)} for item in items]


def _segment(item: Any) -> sv.Detections:
    cuts = [_cut(item, index) for index in range(len(item.boxes))]
    masks = np.array([mask for mask, _ in cuts], bool).reshape(-1, *item.image.hw)
    prediction = masks_to_prediction(masks, [settled for _, settled in cuts])
    return to_detections(prediction, prompting=item.boxes, image_id=item.image.id)


def _cut(item: Any, index: int) -> tuple[NDArray[np.bool_], float]:
    """Cut one box out.

    Returns:
        The mask, and how much of it one more iteration leaves as it is, 0 to 1.

    Source: Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004.
    """
    box = item.boxes.xyxy[index]
    inside, around = _window(box, 0, item.image.hw), _window(box, item.margin, item.image.hw)
    labels = np.full(item.image.hw, cv2.GC_BGD, np.uint8)
    labels[inside] = cv2.GC_PR_FGD
    crop, crop_labels = np.ascontiguousarray(item.image.pixels[around]), labels[around].copy()
    if len(np.unique(crop_labels)) < 2:
        raise ValueError(
            f"box {index} {box.tolist()}: GrabCut wants pixels inside the box and background "
            f"around it; the box is empty, outside, or as large as the picture."
        )
    cv2.setRNGSeed(0)  # GrabCut starts from a random clustering; same box, same mask
    colours = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(crop, crop_labels, None, *colours, item.iterations, cv2.GC_INIT_WITH_MASK)
    before = crop_labels == cv2.GC_PR_FGD
    cv2.grabCut(crop, crop_labels, None, *colours, 1, cv2.GC_EVAL)
    after = crop_labels == cv2.GC_PR_FGD
    mask = np.zeros(item.image.hw, bool)
    mask[around] = after
    return mask, float((before & after).sum() / max(1, (before | after).sum()))


def _window(box_xyxy: Any, margin: float, image_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box with a margin around it touches."""
    pad, wh = margin * (box_xyxy[2:] - box_xyxy[:2]).max(), image_hw[::-1]
    x0, y0 = np.floor(box_xyxy[:2] - pad).clip(0, wh).astype(int)
    x1, y1 = np.ceil(box_xyxy[2:] + pad).clip(0, wh).astype(int)
    return slice(y0, y1), slice(x0, x1)

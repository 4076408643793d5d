"""Outlines through the centres of border pixels, as OpenCV traces and fills them.

The form most clients of polygons expect. It has no holes, and who takes it for the edges of pixels
loses half a pixel all around; `polygons` has outlines along edges, which are exact.
"""

from __future__ import annotations

import numpy as np

from sam2_blocks.masks.rle import rle_crop, rle_to_mask, rles_to_boxes_xyxy
from sam2_blocks.values import Int64Array, Rle


def rle_to_outlines(rle: Rle, *, tolerance_px: float = 0.0) -> list[Int64Array]:
    """Trace the outer borders of a mask.

    Args:
        rle: one mask.
        tolerance_px: how far a simplified outline may be from the exact one.

    Returns:
        For each part, also of parts that touch at corners alone, int64 (P, 2), xy of pixels of the
        mask. ``cv2.fillPoly`` gives the mask back, its holes filled. None for an empty mask.

    Source: ``cv2.findContours(RETR_EXTERNAL, CHAIN_APPROX_SIMPLE)``.
    """
    import cv2

    [box] = rles_to_boxes_xyxy([rle])
    crop = rle_to_mask(rle_crop(rle, box)).view(np.uint8)
    found, _ = cv2.findContours(
        np.ascontiguousarray(crop), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if tolerance_px:
        found = [cv2.approxPolyDP(contour, tolerance_px, closed=True) for contour in found]
    return [contour.reshape(-1, 2).astype(np.int64) + box[:2] for contour in found]

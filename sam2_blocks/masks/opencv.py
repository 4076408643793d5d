"""What masks need of OpenCV: OpenCV's own where it is installed, else the same in Python.

Nothing that we depend on brings OpenCV, and two builds of it in one environment overwrite each
other; so it is never wanted. Supervision has what it needs of it in Python, to the same pixels.
Of that `sv.polygon_to_mask` is public and used where polygons are filled. What is here is not:
`sv.mask_to_polygons` leaves out parts of one pixel or one line, and `sv.approximate_polygon` takes
a number of corners, no distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.values import UInt8Array

Contour = NDArray[np.int32]
"""(P, 1, 2), as OpenCV has it."""


def outer_contours(mask: UInt8Array) -> list[Contour]:
    """Trace the outer borders of what is not 0, through the centres of pixels.

    Source: ``cv2.findContours(RETR_EXTERNAL, CHAIN_APPROX_SIMPLE)``.
    """
    try:
        import cv2
    except ImportError:
        from scipy.ndimage import binary_fill_holes
        from supervision._cv2 import find_contours

        return find_contours(binary_fill_holes(mask))[::-1]  # OpenCV begins at the bottom
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return [np.asarray(contour, np.int32) for contour in found]


def simplify_contour(contour: Contour, tolerance_px: float) -> Contour:
    """Leave points out of a closed contour.

    Args:
        contour: int32, (P, 1, 2), xy pixels.
        tolerance_px: how far the points left out may be from the new contour.

    Source: ``cv2.approxPolyDP``.
    """
    try:
        from cv2 import approxPolyDP
    except ImportError:
        from supervision._cv2 import approxPolyDP
    return np.asarray(approxPolyDP(contour, tolerance_px, True), np.int32)

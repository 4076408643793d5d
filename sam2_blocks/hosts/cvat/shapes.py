"""Masks and boxes ↔ shapes of CVAT: ``mask``, ``polygon`` or ``rectangle``, in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.polygons import MultipolygonPolicy, rle_to_polygons
from sam2_blocks.masks.rle import mask_to_rle, rle_area, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.values import Hw, Image, Prompt, Rle

TOLERANCE_PX = 1.0
"""How far the corners of a polygon may be from the mask: few corners are easy to move."""


def load_sdk() -> Any:
    """Import ``cvat_sdk.auto_annotation``.

    Raises:
        MissingExtraError: if it is not installed, or too old for what we make.
    """
    try:
        import cvat_sdk.auto_annotation as sdk

        _ = sdk.InteractionFunctionSpec, sdk.TrackingFunctionSpec  # the newest of it
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(f"{error}. Run: pip install 'sam2-blocks[cvat]'") from error
    return sdk


def picture_to_image(picture: Any, name: str = "frame") -> Image:
    """Read a Pillow picture, upright and as RGB."""
    from sam2_blocks.formats.images import pil_to_rgb

    return Image(pil_to_rgb(picture), name)


def rle_to_points(rle: Rle) -> list[float]:
    """Encode a mask, which has at least one pixel, as the points of a ``mask``."""
    from cvat_sdk.masks import encode_mask

    return [float(number) for number in encode_mask(rle_to_mask(rle))]


def rle_to_outlines(rle: Rle, policy: MultipolygonPolicy = "all") -> list[list[float]]:
    """Trace a mask as the points of a ``polygon`` for each part, with holes filled.

    Args:
        rle: the mask.
        policy: which parts are traced: ``all`` of them or the ``largest``.

    Returns:
        ``[x0, y0, x1, y1, …]`` in pixels, one list a part; within `TOLERANCE_PX` of the mask.
    """
    traced = rle_to_polygons(
        rle, hole_policy="fill", multipolygon_policy=policy, tolerance_px=TOLERANCE_PX
    )
    return [[float(x) for x in ring.ravel()] for ring in traced.outer]


def rle_to_corners(rle: Rle) -> list[float]:
    """Box a mask as the points of a ``rectangle``, up to the far edge of the last pixel."""
    x0, y0, x1, y1 = (float(edge) for edge in rle_to_box_xyxy(rle))
    return [x0, y0, x1 + 1, y1 + 1]


def rle_to_shape(rle: Rle, kind: str) -> list[float] | None:
    """Write a mask as the points of one shape.

    Args:
        rle: the mask.
        kind: ``mask``, ``rectangle``, or ``polygon``, which is of the largest part alone.

    Returns:
        Numbers as CVAT writes such a shape; None if the mask is empty.
    """
    if not rle_area(rle):
        return None
    if kind == "mask":
        return rle_to_points(rle)
    if kind == "rectangle":
        return rle_to_corners(rle)
    return rle_to_outlines(rle, "largest")[0]


def shape_to_prompt(kind: str, points: list[float], image_hw: Hw) -> Prompt | Rle:
    """Say which object a shape means.

    Args:
        kind: ``mask``, ``rectangle`` or ``polygon``.
        points: of the shape.
        image_hw: size of the picture.

    Returns:
        The mask that it is, or the box.

    Raises:
        ValueError: if the points are not those of such a shape.
    """
    if kind == "mask":
        from cvat_sdk.masks import decode_mask

        height, width = image_hw
        return mask_to_rle(decode_mask(points, image_width=width, image_height=height))
    if kind == "rectangle":
        return Prompt(box_xyxy=np.array(points, np.float32))
    if kind == "polygon":
        return polygons_to_rle([np.array(points, np.float64).reshape(-1, 2)], image_hw)
    raise ValueError(f"a shape must be a mask, a rectangle or a polygon, got {kind!r}")

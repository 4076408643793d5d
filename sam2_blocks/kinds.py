"""Kinds: what a value on a wire must be.

A kind has Roboflow's name where the thing is the same. At compile time two sockets fit when they
share a kind; at run time every value a block takes or returns is checked against its kinds. All
coordinates are xy pixels of the original, upright picture, origin in its top left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_blocks.errors import ImageError
from sam2_blocks.formats import images
from sam2_blocks.prompts import parse_prompts
from sam2_blocks.values import Embedding, Image, PromptSet

if TYPE_CHECKING:
    import supervision as sv

Check = Callable[[Any], None]
"""Raises TypeError, ValueError or ImageError when a value is not of the kind."""

ANY = "*"


@dataclass(frozen=True)
class Kind:
    """The type of a socket.

    Attributes:
        name: as written in manifests.
        description: Python type, shape, dtype, units.
        check: raises TypeError, ValueError or ImageError when a value is not of this kind.
        parse: makes a value from plain data (YAML, JSON, paths); None where that is impossible.
        literal: whether a value may be written out in a pipeline, where a selector may stand.
    """

    name: str
    description: str
    check: Check
    parse: Callable[[Any], Any] | None = None
    literal: bool = False


def check_value(value: object, kinds: Iterable[Kind]) -> None:
    """Check a value against a socket's kinds; one must fit.

    Raises:
        TypeError: if the value is of none of the kinds; the message says what each expected.
    """
    reasons = []
    for kind in kinds:
        try:
            kind.check(value)
        except (TypeError, ValueError, ImageError) as error:
            reasons.append(f"{kind.name}: {error}")
        else:
            return
    raise TypeError("; ".join(reasons))


def parse_value(value: object, kinds: Iterable[Kind]) -> Any:
    """Make a value of one of the kinds from plain data; values that already fit pass through.

    Raises:
        TypeError, ValueError, ImageError: if no kind accepts it.
    """
    listed = list(kinds)
    try:
        check_value(value, listed)
    except TypeError:
        for kind in listed:
            if kind.parse is not None:
                value = kind.parse(value)
                kind.check(value)
                return value
        raise
    return value


def _instance_of(*types: type, name: str) -> Check:
    def check(value: object) -> None:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"wants {name}, got {_shape_of(value)}")

    return check


def _check_image(value: object) -> None:
    if not isinstance(value, Image):
        raise TypeError(f"wants Image, got {_shape_of(value)}")
    images.array_to_image(value.pixels, value.id)


def _parse_image(value: object) -> Image:
    if isinstance(value, str | Path | bytes):
        return images.read_image(value)
    return images.array_to_image(value)


def _check_detections(value: object) -> None:
    import supervision as sv

    if not isinstance(value, sv.Detections):
        raise TypeError(f"wants supervision.Detections, got {_shape_of(value)}")
    if value.xyxy.ndim != 2 or value.xyxy.shape[1] != 4:
        raise ValueError(f"wants xyxy of shape (N, 4), got {value.xyxy.shape}")


def _check_masks(value: Any) -> None:
    """Check detections that have masks; boxes without may be NaN, which a detector gives at times.

    One such box must not cost the picture its others: who uses boxes looks at them row by row.
    """
    _check_detections(value)
    if not np.isfinite(value.xyxy).all():
        row = int(np.flatnonzero(~np.isfinite(value.xyxy).all(axis=1))[0])
        raise ValueError(f"box {row} is not finite: {value.xyxy[row].tolist()}")
    if len(value) and value.mask is None:
        raise ValueError("wants detections with masks, got detections without")


def _check_rle_masks(value: Any) -> None:
    _check_masks(value)
    found = len(value.data.get("rle_mask", ()))
    if found != len(value):
        raise ValueError(f"wants data['rle_mask'] for {len(value)} detections, got {found}")


def _check_keypoints(value: Any) -> None:
    _check_detections(value)
    if len(value) and "keypoints_xy" not in value.data:
        raise ValueError("wants data['keypoints_xy'], got none")


def _parse_detections(value: object) -> sv.Detections:
    from sam2_blocks.formats.rows import rows_to_detections

    return rows_to_detections(value)


def _shape_of(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    return type(value).__name__


def _plain(name: str, description: str, *types: type) -> Kind:
    check = _instance_of(*types, name=description)
    return Kind(name, description, check, lambda value: value, literal=True)


_DETECTIONS = "supervision.Detections, xyxy float (N, 4) pixels"

BUILTIN_KINDS = (
    Kind("image", "Image: uint8 (H, W, 3) RGB with an id", _check_image, _parse_image),
    Kind(
        "image_embedding",
        "Embedding: image_embed (1, C, h/4, w/4) and high_res_feats of one picture",
        _instance_of(Embedding, name="Embedding"),
    ),
    Kind(
        "prompts",
        "PromptSet: boxes, points and mask logits, one prompt an object",
        _instance_of(PromptSet, name="PromptSet"),
        parse_prompts,
        literal=True,
    ),
    Kind(
        "object_detection_prediction",
        _DETECTIONS,
        _check_detections,
        _parse_detections,
        literal=True,
    ),
    Kind("instance_segmentation_prediction", f"{_DETECTIONS}, with mask", _check_masks),
    Kind(
        "rle_instance_segmentation_prediction",
        f"{_DETECTIONS}, with mask and data['rle_mask'] as COCO RLE",
        _check_rle_masks,
    ),
    Kind(
        "keypoint_detection_prediction",
        f"{_DETECTIONS}, with data['keypoints_xy'] (N, K, 2)",
        _check_keypoints,
    ),
    _plain("string", "str", str),
    _plain("integer", "int", int),
    _plain("float", "float or int", float, int),
    _plain("boolean", "bool", bool),
    _plain("list_of_values", "list", list),
    _plain("dictionary", "dict", dict),
    Kind(ANY, "any value", lambda _: None, lambda value: value, literal=True),
)

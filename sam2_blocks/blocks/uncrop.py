"""``detections/uncrop@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.windows import detections_to_parent, join
from sam2_blocks.values import Hw, Image

CROP_INDEX = "crop_index"


class UncropItem(Protocol):
    """One picture; see the manifest."""

    detections: list[sv.Detections] | sv.Detections
    crops: list[Image] | Image
    to: Literal["root", "parent"]


class Uncrop:
    """Move detections back, step by step, and join them."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[UncropItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_uncrop_or_error(item) for item in items]


def _uncrop_or_error(item: UncropItem) -> Mapping[str, Any] | Exception:
    found = item.detections if isinstance(item.detections, list) else [item.detections]
    crops = item.crops if isinstance(item.crops, list) else [item.crops]
    if len(found) != len(crops):
        return ValueError(
            f"detections and crops belong together one by one; got {len(found)} and {len(crops)}. "
            "After on_error: drop, wire the output 'each' of the repeated step as crops."
        )
    try:
        moved = [
            _moved(index, part, crop, item.to)
            for index, (part, crop) in enumerate(zip(found, crops, strict=True))
        ]
    except ValueError as error:
        return error
    pictures = {(name, hw) for _, name, hw in moved}
    if len(pictures) > 1:
        names = ", ".join(sorted(repr(name) for name, _ in pictures))
        return ValueError(f"the crops are of different pictures: {names}. Uncrop each by itself.")
    size = next(iter(pictures), ("", (1, 1)))[1]
    return {"detections": join([part for part, _, _ in moved], size)}


def _moved(index: int, found: sv.Detections, crop: Image, to: str) -> tuple[sv.Detections, str, Hw]:
    """Detections where their crop is, with the id and size of the picture that it is in."""
    origin = crop.parent
    if origin is None:
        raise ValueError(
            f"crop {index}, {crop.id!r}, was cut from nothing; wire what image/crop, image/tile, "
            "image/resize or image/rotate made."
        )
    found = cast(sv.Detections, found[np.isfinite(found.xyxy).all(axis=1)])
    while True:
        try:
            found = detections_to_parent(found, origin)
        except ValueError as error:
            raise ValueError(f"crop {index}, {crop.id!r}: {error}") from error
        if origin.parent is None or to == "parent":
            break
        origin = origin.parent
    data = {**found.data, CROP_INDEX: np.full(len(found), index)}
    return replace(found, data=data), origin.id, origin.hw

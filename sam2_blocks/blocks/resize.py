"""``image/resize@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.windows import scale
from sam2_blocks.values import Hw, Image


class ResizeItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    longest_px: int | None
    scale: float | None
    width_px: int | None
    height_px: int | None
    method: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    max_pixels: int


class Resize:
    """Scale pictures."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[ResizeItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_resize_or_error(item) for item in items]


def _resize_or_error(item: ResizeItem) -> Mapping[str, Any] | Exception:
    try:
        height, width = _new_hw(item)
    except ValueError as error:
        return error
    if height * width > item.max_pixels:
        return ValueError(
            f"the result would have {width}x{height} pixels, more than max_pixels "
            f"{item.max_pixels}. Give a smaller size, or enlarge max_pixels."
        )
    return {"image": scale(item.image, (height, width), method=item.method)}


def _new_hw(item: ResizeItem) -> Hw:
    """The new size, of the one way to say it that was given."""
    height, width = item.image.hw
    ways = {
        "longest_px": item.longest_px,
        "scale": item.scale,
        "width_px and height_px": item.width_px or item.height_px,
    }
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise ValueError(f"give one of longest_px, scale, or width_px and height_px; got {got}.")
    if item.width_px and item.height_px:
        return item.height_px, item.width_px
    if item.width_px:
        factor = item.width_px / width
    elif item.height_px:
        factor = item.height_px / height
    else:
        factor = item.scale or (item.longest_px or 0) / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))

"""``image/tile@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Protocol

import numpy as np

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.windows import cut, part_name
from sam2_blocks.values import Image


class TileItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    tile_px: int
    overlap: float
    max_tiles: int


class Tile:
    """Cut pictures into tiles, which share their pixels."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[TileItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_tiles_or_error(item) for item in items]


def _tiles_or_error(item: TileItem) -> Mapping[str, Any] | Exception:
    height, width = item.image.hw
    tops = _starts(height, item.tile_px, item.overlap)
    lefts = _starts(width, item.tile_px, item.overlap)
    wanted = len(tops) * len(lefts)
    if wanted > item.max_tiles:
        return ValueError(
            f"the {width}x{height} picture wants {wanted} tiles, more than max_tiles "
            f"{item.max_tiles}. Enlarge tile_px, or max_tiles."
        )
    corners = [(x, y) for y in tops for x in lefts]
    tiles = [
        cut(
            item.image,
            (x, y, min(x + item.tile_px, width), min(y + item.tile_px, height)),
            name=part_name(item.image.id, "tile", index),
        )
        for index, (x, y) in enumerate(corners)
    ]
    return {"tiles": tiles}


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: evenly, the last one at its end."""
    if length <= tile:
        return [0]
    step = max(1, tile - ceil(overlap * tile))
    count = ceil((length - tile) / step) + 1
    return [int(start) for start in np.linspace(0, length - tile, count).round()]

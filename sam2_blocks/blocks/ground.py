"""``transformers/ground@v1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sam2_blocks.blocks.detect import Answer, DetectorItem, answer_alike, model_of
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import TextPrompted
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.strategies.detect import TileSettings, detect_in_tiles, suppress_objects
from sam2_blocks.strategies.phrases import check_phrases


class GroundItem(DetectorItem, Protocol):
    """One picture; see the manifest."""

    phrases: list[str]
    text_threshold: float
    nms_iou: float
    max_phrases: int


class Ground:
    """Find what phrases say; pictures that are asked the same are one batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[GroundItem]) -> Sequence[Answer]:
        """See the manifest."""
        return answer_alike(items, self._find)

    def _find(self, items: Sequence[GroundItem]) -> list[FoundObjects]:
        asked = items[0]
        check_phrases(asked.phrases, asked.max_phrases)
        model = model_of(self._resources, asked, TextPrompted)
        found = detect_in_tiles(
            lambda views: model.ground(
                views,
                asked.phrases,
                threshold=asked.threshold,
                text_threshold=asked.text_threshold,
            ),
            [item.image for item in items],
            TileSettings(asked.tile_px, asked.overlap),
        )
        return [suppress_objects(of_item, asked.nms_iou) for of_item in found]

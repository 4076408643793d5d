"""``transformers/detect@v1``, and what it shares with ``transformers/ground@v1``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import ObjectDetector
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.detections import objects_to_detections
from sam2_blocks.strategies.detect import (
    TileSettings,
    check_classes,
    choose_objects,
    detect_in_tiles,
)
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks.values import Image

FAMILY = "transformers"

Answer = Mapping[str, Any] | Exception
Ability = TypeVar("Ability")


class DetectorItem(Protocol):
    """What every detector is asked; see the manifests."""

    image: Image
    model: str
    revision: str | None
    threshold: float
    max_count: int | None
    tile_px: int
    overlap: float
    device: str
    dtype: str


class DetectItem(DetectorItem, Protocol):
    """One picture; see the manifest."""

    classes: list[str] | None
    size_px: int


class Detect:
    """Find objects of a model's classes; pictures that are asked the same are one batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[DetectItem]) -> Sequence[Answer]:
        """See the manifest."""
        return answer_alike(items, self._find)

    def _find(self, items: Sequence[DetectItem]) -> list[FoundObjects]:
        asked = items[0]
        detector = model_of(self._resources, asked, ObjectDetector)
        check_classes(asked.classes, detector.class_names, asked.model)
        found = detect_in_tiles(
            lambda views: detector.detect(views, threshold=asked.threshold, size_px=asked.size_px),
            [item.image for item in items],
            TileSettings(asked.tile_px, asked.overlap),
        )
        return [choose_objects(of, classes=asked.classes) for of in found]


Item = TypeVar("Item", bound=DetectorItem)


def answer_alike(
    items: Sequence[Item], find: Callable[[Sequence[Item]], list[FoundObjects]]
) -> list[Answer]:
    """Let a detector look at the pictures of all items that ask the same of it, together.

    Args:
        items: any number of items.
        find: gets items that differ in their picture alone.

    Returns:
        Detections of each item, or what was wrong with what it asked.
    """

    def answer(_: str, alike: list[Item]) -> list[Answer]:
        try:
            found = find(alike)
        except ValueError as error:  # what was asked, not one picture
            return [error] * len(alike)
        return [
            {
                "detections": objects_to_detections(
                    choose_objects(of_item, max_count=item.max_count), image_id=item.image.id
                )
            }
            for item, of_item in zip(alike, found, strict=True)
        ]

    return map_groups(items, _asked, answer)


def model_of(resources: Resources, item: DetectorItem, ability: type[Ability]) -> Ability:
    """Return the model that an item names, in its revision.

    Args:
        resources: the models.
        item: names a model, and perhaps a revision of it.
        ability: what it must be able to do.

    Raises:
        ModelError: if it cannot be loaded, or cannot do that.
    """
    name = f"{item.model}@{item.revision}" if item.revision else item.model
    return resources.model(name, ability, family=FAMILY, device=item.device, dtype=item.dtype)


def _asked(item: Any) -> str:
    """All that an item asks, but its picture; lists have no hash, their text has."""
    return repr({name: value for name, value in vars(item).items() if name != "image"})

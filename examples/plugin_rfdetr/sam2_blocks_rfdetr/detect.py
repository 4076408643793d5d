"""``rfdetr/detect@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import supervision as sv

from sam2_blocks import Image, Resources
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks_rfdetr import FAMILY


class DetectItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    model: str
    threshold: float
    classes: list[str] | None
    max_count: int | None
    device: str


@runtime_checkable
class FindsObjects(Protocol):
    """What this block needs of a model."""

    class_names: tuple[str, ...]

    def find(self, images: Sequence[Image], threshold: float) -> list[sv.Detections]:
        """Find objects in pictures."""
        ...


class Detect:
    """Find objects; pictures that are asked the same are one batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[DetectItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        found = map_groups(items, attrgetter("model", "device", "threshold"), self._find)
        return [
            {"detections": _chosen(of_item, item)}
            for item, of_item in zip(items, found, strict=True)
        ]

    def _find(
        self, asked: tuple[str, str, float], items: Sequence[DetectItem]
    ) -> list[sv.Detections]:
        name, device, threshold = asked
        model = self._resources.model(name, FindsObjects, family=FAMILY, device=device)
        for item in items:
            _check_classes(item, model.class_names)
        return model.find([item.image for item in items], threshold)


def _chosen(found: sv.Detections, item: DetectItem) -> sv.Detections:
    """Keep the classes and the number that were asked for; the most certain are first."""
    rows = np.arange(len(found))
    if item.classes is not None:
        rows = rows[np.isin(found.data["class_name"], item.classes)]
    return found.select(rows[: item.max_count])


def _check_classes(item: DetectItem, known: tuple[str, ...]) -> None:
    for name in item.classes or ():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the model {item.model!r} knows no class {name!r}.{hint}")

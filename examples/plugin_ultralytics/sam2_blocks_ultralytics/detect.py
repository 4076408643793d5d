"""``ultralytics/detect@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import supervision as sv

from sam2_blocks import Image, Resources
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks_ultralytics import FAMILY


class DetectItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    model: str
    threshold: float
    nms_iou: float
    classes: list[str] | None
    max_count: int
    size_px: int
    device: str


@runtime_checkable
class FindsObjects(Protocol):
    """What this block needs of a model."""

    class_names: tuple[str, ...]

    def find(self, images: Sequence[Image], **asked: Any) -> list[sv.Detections]:
        """Find objects in pictures."""
        ...


class Detect:
    """Find objects; pictures that are asked the same are one batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[DetectItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        found = map_groups(items, _asked, self._find)
        return [{"detections": of_item} for of_item in found]

    def _find(self, _: str, items: Sequence[DetectItem]) -> list[sv.Detections]:
        asked = items[0]
        model = self._resources.model(asked.model, FindsObjects, family=FAMILY, device=asked.device)
        return model.find(
            [item.image for item in items],
            conf=asked.threshold,
            iou=asked.nms_iou,
            classes=_numbers(asked, model.class_names),
            max_det=asked.max_count,
            imgsz=asked.size_px,
        )


def _asked(item: Any) -> str:
    """All that an item asks, but its picture."""
    return repr({name: value for name, value in vars(item).items() if name != "image"})


def _numbers(asked: DetectItem, known: tuple[str, ...]) -> list[int] | None:
    """Numbers of the classes to keep."""
    if asked.classes is None:
        return None
    for name in asked.classes:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the model {asked.model!r} knows no class {name!r}.{hint}")
    return [known.index(name) for name in asked.classes]

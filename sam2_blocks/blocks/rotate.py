"""``image/rotate@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.windows import turn
from sam2_blocks.values import Image


class RotateItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    degrees: Literal[0, 90, 180, 270]


class Rotate:
    """Turn pictures."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[RotateItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"image": turn(item.image, item.degrees // 90)} for item in items]

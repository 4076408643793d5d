"""``flow/first@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sam2_blocks.engine.resources import Resources


class FirstItem(Protocol):
    """One picture; see the manifest."""

    values: list[Any]


class First:
    """Take the first of the values that are there; the runner leaves out the others."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[FirstItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"value": item.values[0]} for item in items]

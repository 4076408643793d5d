"""``sam2/embed@v1``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sam2_blocks.engine.resources import Resources
from sam2_blocks.values import Embedding


class Embed:
    """Encode pictures; those that ask for the same model share a batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"embedding": embedding} for embedding in embed(self._resources, items)]


def embed(resources: Resources, items: Sequence[Any]) -> list[Embedding]:
    """Embed ``item.image`` with ``item.model``, ``item.device`` and ``item.dtype``, in order."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.model, item.device, item.dtype].append(index)
    embeddings: dict[int, Embedding] = {}
    for (model, device, dtype), indices in groups.items():
        executor = resources.executor(model, device=device, dtype=dtype)
        made = executor.embed([items[index].image for index in indices])
        embeddings.update(zip(indices, made, strict=True))
    return [embeddings[index] for index in range(len(items))]

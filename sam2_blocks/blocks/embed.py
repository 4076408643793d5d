"""``sam2/embed@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Executor
from sam2_blocks.strategies.segment import embed_pictures
from sam2_blocks.values import Embedding, Image


class ModelItem(Protocol):
    """What names a model, in every block that runs one."""

    model: str
    device: str
    dtype: str
    backend: str
    input_px: int


class EmbedItem(ModelItem, Protocol):
    """One picture; see the manifest."""

    image: Image


class Embed:
    """Encode pictures; those that ask for the same model share a batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[EmbedItem]) -> Sequence[Mapping[str, Embedding]]:
        """See the manifest."""
        pictures = [(executor_for(self._resources, item), item.image) for item in items]
        return [{"embedding": embedding} for embedding in embed_pictures(pictures)]


def executor_for(
    resources: Resources, item: ModelItem, embedding: Embedding | None = None
) -> Executor:
    """Return the executor that made the embedding, or the one that the item names."""
    if embedding is not None:
        return resources.executor_of(embedding)
    return resources.executor(
        item.model,
        device=item.device,
        dtype=item.dtype,
        backend=item.backend,
        input_px=item.input_px,
    )

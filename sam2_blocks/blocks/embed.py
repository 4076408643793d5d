"""``sam2/embed@v1``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Executor, ExpectsPictures
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
        self._coming = ComingPictures()

    def run(self, items: Sequence[EmbedItem]) -> Sequence[Mapping[str, Embedding]]:
        """See the manifest."""
        pictures = [(executor_for(self._resources, item), item.image) for item in items]
        self._coming.are_like([executor for executor, _ in pictures])
        return [{"embedding": embedding} for embedding in embed_pictures(pictures)]

    def expect(self, image: Image) -> None:
        """Announce a picture to the model of those before; see `sam2_blocks.Block`."""
        self._coming.announce(image)


class ComingPictures:
    """Tells a model of pictures that it will probably be asked to encode."""

    def __init__(self) -> None:
        self._executor: Callable[[], Executor | None] = lambda: None

    def are_like(self, encoding: Sequence[Executor | None]) -> None:
        """Note who encodes the pictures that are here now; those to come are likely for the same.

        It is not kept: what other models leave no room for must be free to go.

        Args:
            encoding: an executor a picture, None where it is not encoded. If most are not, those
                to come are announced to nobody: it would be work for nothing.
        """
        self._executor = lambda: None
        found = [executor for executor in encoding if executor is not None]
        if 2 * len(found) > len(encoding) and isinstance(found[-1], ExpectsPictures):
            with suppress(TypeError):  # a class of a plugin may allow no weak references
                self._executor = weakref.ref(found[-1])

    def announce(self, image: Image) -> None:
        """Tell of a picture; several threads may do so."""
        executor = self._executor()
        if isinstance(executor, ExpectsPictures):
            executor.expect(image)


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

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
        self._coming.note_encoders([executor for executor, _ in pictures])
        return [{"embedding": embedding} for embedding in embed_pictures(pictures)]

    def expect(self, image: Image) -> None:
        """Announce a picture to the model of the last ones; see `ExpectingBlock`."""
        self._coming.announce(image)


class ComingPictures:
    """Announces pictures of the next micro-batch to the model that will probably encode them."""

    def __init__(self) -> None:
        self._executor: Callable[[], Executor | None] = lambda: None

    def note_encoders(self, encoding: Sequence[Executor | None]) -> None:
        """Note who encodes the pictures of this micro-batch; the next ones likely go there, too.

        The reference to the executor is weak, so that its memory can be freed for other models.

        Args:
            encoding: the executor of each picture, None for one that is not encoded. Where most
                are not, nothing is announced: it would be work for nothing.
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
    """Return the executor that answers an item.

    Args:
        resources: the models.
        item: names a model and how to load it.
        embedding: of the picture, if there is one; then its executor is the one, whatever the item
            says.

    Raises:
        ModelError: if it cannot be loaded.
    """
    if embedding is not None:
        return resources.executor_of(embedding)
    return resources.executor(
        item.model,
        device=item.device,
        dtype=item.dtype,
        backend=item.backend,
        input_px=item.input_px,
    )

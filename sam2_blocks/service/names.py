"""Names of images: an ``image_id`` stands for pixels, never for a slot in a cache.

Only the name, the digest of the pixels and the keys of their embeddings are kept here; the
embeddings themselves live in the one cache, that of the executor.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sam2_blocks.service.errors import ImageConflictError, UnknownImageError
from sam2_blocks.values import Embedding, ExecutorSpec, Hw, Image

MAX_NAMES = 100_000


def pixel_digest(image: Image) -> str:
    """Name an image by its content: 32 hexadecimal digits of its shape and all its pixels."""
    digest = hashlib.blake2b(f"{image.pixels.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image.pixels).data)
    return digest.hexdigest()


@dataclass
class _Named:
    """What a name stands for, and under which key each model keeps its embedding."""

    digest: str
    hw: Hw | None = None
    keys: dict[ExecutorSpec, str] = field(default_factory=dict)


class ImageNames:
    """The names that clients gave to images, each its own; shared by threads.

    Args:
        on_conflict: ``refuse`` a name that comes back with other pixels, or ``replace`` what it
            stands for.
        max_names: the least recently used name is forgotten first.
    """

    def __init__(
        self,
        on_conflict: Literal["refuse", "replace"] = "refuse",
        *,
        max_names: int = MAX_NAMES,
    ) -> None:
        self._on_conflict = on_conflict
        self._max_names = max_names
        self._names: OrderedDict[tuple[str, str], _Named] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def claim(self, name: str, digest: str, *, client: str = "") -> None:
        """Let a name stand for these pixels.

        Args:
            name: the ``image_id`` of the request.
            digest: of the pixels, as `pixel_digest` makes it.
            client: whose name it is; empty where clients are not told apart.

        Raises:
            ImageConflictError: if it stands for others, and names are not to be replaced.
        """
        with self._lock:
            named = self._names.get((client, name))
            if named is None or (named.digest != digest and self._on_conflict == "replace"):
                self._names[client, name] = named = _Named(digest)
            self._names.move_to_end((client, name))
            if named.digest != digest:
                raise ImageConflictError(
                    f"image_id {name!r} stands for other pixels already. Choose another image_id, "
                    "or leave it out to get one made from the pixels."
                )
            if len(self._names) > self._max_names:
                self._names.popitem(last=False)

    def remember(self, name: str, digest: str, embedding: Embedding, *, client: str = "") -> None:
        """Keep the key of an embedding, unless the name stands for other pixels by now.

        Args:
            name: as in `claim`.
            digest: of the pixels that the embedding was made of.
            embedding: whose key, model and size are kept; not itself.
            client: as in `claim`.
        """
        with self._lock:
            named = self._names.get((client, name))
            if named is not None and named.digest == digest:
                named.keys[embedding.spec] = embedding.key
                named.hw = embedding.image_hw

    def image_hw(self, name: str, *, client: str = "") -> Hw | None:
        """Return the size of the named image in pixels; None if no embedding was made of it."""
        with self._lock:
            named = self._names.get((client, name))
            return None if named is None else named.hw

    def find(self, name: str, spec: ExecutorSpec, *, client: str = "") -> str | None:
        """Return the key of the embedding that this model made of the named image, if it did."""
        with self._lock:
            named = self._names.get((client, name))
            if named is None:
                return None
            self._names.move_to_end((client, name))
            return named.keys.get(spec)

    def key(self, name: str, spec: ExecutorSpec, *, client: str = "") -> str:
        """Return the key of the embedding that this model made of the named image.

        Raises:
            UnknownImageError: if the name is unknown, or this model has not seen the image.
        """
        key = self.find(name, spec, client=client)
        if key is None:
            raise UnknownImageError(
                f"image_id {name!r} is not known to model {spec.model!r}. Send the image too."
            )
        return key

"""Where embeddings are kept: on the device, in host memory, on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sam2_blocks.executor.cache.files import EmbeddingFiles
from sam2_blocks.executor.cache.lru import ByteCache, CacheStats
from sam2_blocks.forks import ForkSafeLock
from sam2_blocks.values import Embedding

Compute = Callable[[Sequence[str]], Sequence[Embedding]]


class EmbeddingCache:
    """Embeddings by content key: least recently used first out, each computed once.

    What the device has no room for goes to host memory; what is computed is also written to disk.
    An embedding found in a slower tier is copied to the device and stays where it was, so that to
    evict it again costs nothing. Threads may share it.

    Args:
        device: where embeddings are computed and used.
        device_bytes: bound of the first tier; 0 keeps nothing there.
        device_entries: bound of the first tier.
        host_bytes: bound of the second tier; 0 is none.
        files: the third tier, if any.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        device_bytes: int,
        device_entries: int,
        host_bytes: int = 0,
        files: EmbeddingFiles | None = None,
    ) -> None:
        self._to_device = partial(Tensor.to, device=device, non_blocking=True)
        self._fast: ByteCache[Embedding] = ByteCache(
            device_bytes, device_entries, on_drop=self._spill if host_bytes else None
        )
        self._host: ByteCache[Embedding] | None = ByteCache(host_bytes) if host_bytes else None
        self._files = files
        self._computed = 0
        self._lock = ForkSafeLock()

    def get_many(self, keys: Sequence[str], compute: Compute) -> list[Embedding]:
        """Return the embeddings of these keys, computing those that no tier has.

        Threads that ask for one key at once share the look into slower tiers and the computing.

        Args:
            keys: content keys, in any order, duplicates allowed.
            compute: makes the embeddings of missing keys; see `ByteCache.get_many`.

        Returns:
            One embedding a key, in order, on the device.
        """
        return self._fast.get_many(keys, partial(self._fetch, compute=compute))

    def find(self, key: str) -> Embedding | None:
        """Return what any tier holds under a key; nothing is computed or waited for."""
        embedding = self._fast.find(key)
        if embedding is None:
            embedding = self._find_below(key)
            if embedding is not None:
                self._fast.put(key, embedding)
        return embedding

    def holds(self, key: str) -> bool:
        """Say whether any tier has something under a key; it is not counted as asked for."""
        in_memory = (tier for tier in (self._fast, self._host) if tier is not None)
        if any(tier.touch(key) for tier in in_memory):
            return True
        return self._files is not None and self._files.path_of(key).exists()

    def flush(self) -> None:
        """Wait until every embedding computed so far is on disk."""
        if self._files is not None:
            self._files.flush()

    def forget_unused(self) -> None:
        """Drop from memory what was not asked for since the last call; the disk keeps it."""
        self._fast.forget_unused()
        if self._host is not None:
            self._host.forget_unused()

    def stats(self) -> CacheStats:
        """Return the counters of all tiers and of each; ``misses`` were computed."""
        tiers = {"device": self._fast.stats()}
        if self._host is not None:
            tiers["host"] = self._host.stats()
        if self._files is not None:
            tiers["disk"] = self._files.stats()
        return CacheStats(
            hits=sum(tier.hits for tier in tiers.values()),
            misses=self._computed,
            evictions=sum(tier.evictions for tier in tiers.values()),
            entries=sum(tier.entries for tier in tiers.values()),
            nbytes=sum(tier.nbytes for tier in tiers.values()),
            tiers=tiers,
        )

    def _fetch(self, keys: Sequence[str], compute: Compute) -> list[Embedding]:
        """Bring embeddings from the slower tiers and compute the others together."""
        found = {key: self._find_below(key) for key in keys}
        missing = [key for key, embedding in found.items() if embedding is None]
        if missing:
            with self._lock.held():
                self._computed += len(missing)
            computed = compute(missing)
            found.update(zip(missing, computed, strict=True))
            if self._files is not None:
                for embedding in computed:
                    self._files.write(embedding)
        return [embedding for embedding in found.values() if embedding is not None]

    def _find_below(self, key: str) -> Embedding | None:
        embedding = self._host.find(key) if self._host is not None else None
        if embedding is None and self._files is not None:
            embedding = self._files.read(key)
        return embedding and _move(embedding, self._to_device)

    def _spill(self, key: str, embedding: Embedding) -> None:
        assert self._host is not None
        if not self._host.touch(key):
            self._host.put(key, _move(embedding, copy_to_host))


def copy_to_host(tensor: Tensor) -> Tensor:
    """Copy a tensor to host memory; from CUDA to pinned memory, without waiting.

    The values are there for work that is queued on the same CUDA stream later, such as copying
    them back; the host itself would have to synchronise before it reads them.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu()
    pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def _move(embedding: Embedding, move: Callable[[Tensor], Tensor]) -> Embedding:
    return replace(
        embedding,
        image_embed=move(embedding.image_embed),
        high_res_feats=tuple(move(level) for level in embedding.high_res_feats),
    )

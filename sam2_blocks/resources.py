"""What steps share while a pipeline runs: loaded models, made once for each configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.values import Embedding, ExecutorSpec, Image, MaskPrediction, PromptSet


@runtime_checkable
class Executor(Protocol):
    """A loaded model. Stateless for callers and safe to call from several threads."""

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device and dtype; every embedding it makes carries it."""
        ...

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode pictures of any sizes, in real batches."""
        ...

    def segment(
        self,
        items: Sequence[tuple[Embedding, PromptSet]],
        *,
        multimask_output: bool = True,
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        return_candidates: bool = False,
    ) -> list[MaskPrediction]:
        """Decode the prompts of several images together."""
        ...


ExecutorFactory = Callable[..., Executor]
"""``factory(model, *, device, dtype) -> Executor``"""


class Resources:
    """Registry of executors shared by all steps, threads and pipelines that hold it.

    Args:
        factories: executor factories by name, as plugins registered them; ``sam2`` is built in.
    """

    def __init__(self, factories: Mapping[str, ExecutorFactory]) -> None:
        self._factories = dict(factories)
        self._executors: dict[tuple[str, ExecutorSpec], Executor] = {}
        self._lock = threading.Lock()

    def executor(
        self, model: str, *, device: str = "auto", dtype: str = "auto", factory: str = "sam2"
    ) -> Executor:
        """Return the executor of this configuration, loading it on first use.

        Raises:
            ModelError: if no such factory is registered, or the model cannot be loaded.
        """
        asked = (factory, ExecutorSpec(model, device, dtype))
        with self._lock:
            if asked not in self._executors:
                if factory not in self._factories:
                    hint = did_you_mean(factory, self._factories)
                    raise ModelError(f"no executor is registered as {factory!r}.{hint}")
                loaded = self._factories[factory](model, device=device, dtype=dtype)
                # "auto" and its resolved name are one executor, whichever is asked for first.
                self._executors[asked] = self._executors.setdefault((factory, loaded.spec), loaded)
            return self._executors[asked]

    def executor_of(self, embedding: Embedding, *, factory: str = "sam2") -> Executor:
        """Return the executor that made this embedding."""
        model, device, dtype = embedding.spec
        return self.executor(model, device=device, dtype=dtype, factory=factory)

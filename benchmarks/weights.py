"""Whose weights everybody has: random ones of one seed, or trained ones."""

from __future__ import annotations

import functools
from typing import Any

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.loading import load_model

SEED = 0
TRAINED_SUFFIXES = (".pt", ".safetensors")


class Weights:
    """One model's weights on one device: seeded random ones, but for ``nano`` and checkpoints.

    Attributes:
        name: a name of the catalogue, or the path of a checkpoint.
        device: such as ``cpu``.
        trained: whether the model's own masks mean something.
        seed: of random weights; None if it is trained.
    """

    def __init__(self, name: str, device: str) -> None:
        self.name = name
        self.device = device
        self.trained = name == "nano" or name.endswith(TRAINED_SUFFIXES)
        self.seed = None if self.trained else SEED

    @functools.cached_property
    def network(self) -> Any:
        """The plain ``SAM2Base`` for the others: no executor of ours touches it."""
        return load_model(self.name, device=self.device, seed=self.seed).network

    def load(self, **options: Any) -> Sam2Executor:
        """Load an executor of ours."""
        return load(self.name, device=self.device, seed=self.seed, cache_bytes=0, **options)

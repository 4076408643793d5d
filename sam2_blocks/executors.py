"""What an executor can do: the protocols that blocks, strategies and hosts lean on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from sam2_blocks.values import (
    AutomaticMasks,
    AutomaticSettings,
    Embedding,
    ExecutorSpec,
    Float32Array,
    Image,
    MaskPrediction,
    PromptSet,
)


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
        """Decode the prompts of several images together; see `SegmentOptions`."""
        ...


@runtime_checkable
class MaskProposer(Protocol):
    """An executor that can also segment without prompts; see `sam2_blocks.strategies.automatic`.

    Not part of `Executor`, so that one without it stays whole.
    """

    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        *,
        return_logits: bool = False,
    ) -> AutomaticMasks:
        """Decode one foreground click a row and keep every mask that passes the filters.

        Args:
            embedding: one that this executor made.
            points_xy: float32, (P, 2), pixels of the original image.
            settings: thresholds of the filters; boxes are suppressed later.
            return_logits: keep the low-resolution logits too.

        Returns:
            None to three masks a point, in the order of the points.
        """
        ...


ExecutorFactory = Callable[..., Executor]
"""``factory(model, *, device, dtype) -> Executor``"""

DEFAULT_FACTORY = "sam2"

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")


def is_checkpoint(model: str) -> bool:
    """Whether a model's name is the path of a checkpoint."""
    return Path(model).suffix in CHECKPOINT_SUFFIXES

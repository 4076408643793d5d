"""What a detector and a grounder share: a network, its processor and the turn on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from sam2_blocks.executor.device.chunks import map_chunks
from sam2_blocks.executor.device.fair_lock import FairLock
from sam2_blocks.executor.device.found import memory_of, nbytes_of
from sam2_blocks.formats.images import check_image
from sam2_blocks.values import ExecutorSpec, Image

PICTURES_PER_BATCH = 16

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Network:
    """A network on its device, and what makes its inputs and reads its outputs.

    Attributes:
        network: of the library, in evaluation mode.
        processor: an image processor, or one of pictures and text.
        spec: resolved model, device and dtype.
        dtype: of its weights.
    """

    network: Any
    processor: Any
    spec: ExecutorSpec
    dtype: torch.dtype
    _turn: FairLock = field(default_factory=FairLock)

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return nbytes_of(self.network)

    @property
    def device_nbytes(self) -> int | None:
        """Bytes of its device's memory; None if that does not say."""
        return memory_of(self.spec.device)

    @property
    def config(self) -> Any:
        """Configuration of the network."""
        return self.network.config

    def map_pictures(
        self, function: Callable[[Sequence[Image]], list[Result]], images: Sequence[Image]
    ) -> list[Result]:
        """Apply a function to batches of pictures that fit the device.

        Raises:
            ImageError: if one is no uint8 RGB picture.
            ModelError: if the device has no memory for a single one.
        """
        for image in images:
            check_image(image)
        with self._turn, torch.inference_mode():
            return map_chunks(function, images, PICTURES_PER_BATCH)

    def prepare(self, images: Sequence[Image], **options: Any) -> Any:
        """Make tensors of pictures, and of text beside them, on the device."""
        inputs = self.processor(
            images=[image.pixels for image in images],
            return_tensors="pt",
            input_data_format="channels_last",
            **options,
        )
        return inputs.to(self.spec.device, self.dtype)

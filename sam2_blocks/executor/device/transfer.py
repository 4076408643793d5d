"""Arrays to the device and back: on CUDA through pinned memory, so that nobody waits for a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array of any strides, read-only or not, to the device."""
    if device.type != "cuda":
        return torch.tensor(np.ascontiguousarray(array)).to(device)
    pinned = torch.empty(array.shape, dtype=_torch_dtype(array), pin_memory=True)
    np.copyto(pinned.numpy(), array)
    return pinned.to(device, non_blocking=True)


class Download:
    """Tensors on their way to the host, while the device goes on.

    Args:
        tensors: on one device, not to be written to afterwards: on a CPU nothing is copied.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._device = tensors[0].device
        self._copies = [self._start(tensor) for tensor in tensors]

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for the copies; those of CUDA are in pinned memory, so do not keep them for long."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return [copy.numpy() for copy in self._copies]

    def _start(self, tensor: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return tensor.cpu()
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)


def _torch_dtype(array: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype

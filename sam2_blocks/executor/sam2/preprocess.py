"""Pixels to what the encoder sees: resized to a square and normalised, on the device.

The same numbers as torchvision's ToTensor, Resize (bilinear, antialiased) and Normalize, which the
official predictor uses; only the bytes travel to the device, and torchvision is not needed.
Source: sam2 ``utils/transforms.py: SAM2Transforms``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.values import UInt8Array

VERSION = 1  # part of every embedding's key: raise it when the numbers change
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Pictures resized together, as float32: beyond this a batch only takes memory.
GROUP_BYTES = 256 * 2**20
CHANNEL_BYTES = 64 * 2**20
"""Pictures of more, as float32, are resized one channel at a time."""


def pixels_to_input(pixels: UInt8Array, size: int, device: torch.device) -> Tensor:
    """Resize and normalise one picture: float32, (3, size, size); see `pictures_to_batch`."""
    return pictures_to_batch([pixels], size, device)[0]


def pictures_to_batch(pictures: Sequence[UInt8Array], size: int, device: torch.device) -> Tensor:
    """Resize and normalise pictures, neighbours of equal size together.

    Args:
        pictures: uint8, (H, W, 3) each, RGB, of any sizes; at least one.
        size: side of the square the encoder sees.
        device: where to compute.

    Returns:
        float32, (B, 3, size, size).
    """
    batches = []
    for shape, same in groupby(pictures, np.shape):
        group = list(same)
        at_once = max(1, GROUP_BYTES // (math.prod(shape) * torch.float32.itemsize))
        for start in range(0, len(group), at_once):
            uploaded = [upload(pixels, device)[None] for pixels in group[start : start + at_once]]
            together = torch.cat(uploaded) if len(uploaded) > 1 else uploaded[0]
            batches.append(_resize(together, size))
    return torch.cat(batches)


def _resize(pixels: Tensor, size: int) -> Tensor:
    """Resize and normalise uint8 (B, H, W, 3): float32 (B, 3, size, size)."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    channels = pixels.permute(0, 3, 1, 2)
    # Each channel is resized by itself, so that many pixels need not be floats all at once.
    parts = 3 if pixels.numel() * torch.float32.itemsize > CHANNEL_BYTES else 1
    resized = [
        F.interpolate(
            some.to(torch.float32, memory_format=torch.contiguous_format).div_(255),
            (size, size),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        for some in channels.chunk(parts, dim=1)
    ]
    return torch.cat(resized, dim=1).sub_(mean).div_(std)

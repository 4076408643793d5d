"""Pixels to what the encoder sees: resized to a square and normalised, on the device.

The same numbers as torchvision's ToTensor, Resize (bilinear, antialiased) and Normalize, which the
official predictor uses; only the bytes travel to the device, and torchvision is not needed.
Source: sam2 ``utils/transforms.py: SAM2Transforms``.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.values import UInt8Array

VERSION = 1  # part of every embedding's key: raise it when the numbers change
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def pixels_to_input(pixels: UInt8Array, size: int, device: torch.device) -> Tensor:
    """Resize and normalise one picture.

    Args:
        pixels: uint8, (H, W, 3), RGB.
        size: side of the square the encoder sees.
        device: where to compute.

    Returns:
        float32, (3, size, size).
    """
    uploaded = torch.tensor(np.ascontiguousarray(pixels)).to(device)
    image = uploaded.permute(2, 0, 1).contiguous().float().div(255)
    mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(STD, device=device).view(3, 1, 1)
    resized = F.interpolate(
        image[None], (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].sub(mean).div(std)

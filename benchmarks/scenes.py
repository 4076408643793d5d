"""What the benchmarks segment: boxes, and smooth logits that look like masks of real objects.

The public architectures run here with random weights, whose masks are noise. Noise has a thousand
times the runs of a real mask, so timings of everything after the decoder would mean nothing.
Instead the decoder does its work and its answer is replaced by these logits, for every peer alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

GRID = 256
# Square root of a mask's share of the picture, smallest and largest.
SIDES = {"small": (0.05, 0.45), "large": (0.73, 0.83)}


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects of one picture.

    Attributes:
        image_hw: size of the picture.
        boxes_xyxy: float32, (N, 4), pixels.
        logits: float32, (N, 3, h, w), three candidates an object.
        iou: float32, (N, 3), their predicted IoU.
    """

    image_hw: tuple[int, int]
    boxes_xyxy: np.ndarray
    logits: Tensor
    iou: Tensor

    def coverage(self) -> float:
        """Mean share of the picture that the first candidates cover."""
        return float((self.logits[:, 0] > 0).float().mean())


def make_scene(image_hw: tuple[int, int], count: int, size: str, seed: int = 0) -> Scene:
    """Scatter wobbly ellipses over a picture.

    Args:
        image_hw: size of the picture.
        count: number of objects.
        size: ``small`` (as in COCO) or ``large`` (about 43 % of the picture).
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    smallest, largest = np.log(SIDES[size])
    side = np.exp(rng.uniform(smallest, largest, count))
    stretch = np.exp(rng.uniform(-0.35, 0.35, count))
    wh = np.clip(np.stack([side * stretch, side / stretch], 1), 0.02, 0.95)
    centre = wh / 2 + rng.uniform(0, 1, (count, 2)) * (1 - wh)
    height, width = image_hw
    boxes = np.concatenate([centre - wh / 2, centre + wh / 2], 1) * [width, height, width, height]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([_object_logits(c, s, generator) for c, s in zip(centre, wh, strict=True)])
    iou = torch.rand(count, 3, generator=generator) * 0.3 + 0.65
    return Scene(image_hw, boxes.astype(np.float32), logits, iou)


def make_picture(image_hw: tuple[int, int], seed: int) -> np.ndarray:
    """Make a smooth random picture, uint8 (H, W, 3), that a JPEG compresses like a photograph."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    fine = torch.rand(1, 3, 90, 120, generator=generator)
    up = [F.interpolate(x, image_hw, mode="bilinear", align_corners=False) for x in (coarse, fine)]
    return (up[0] * 0.7 + up[1] * 0.3)[0].mul(255).byte().permute(1, 2, 0).contiguous().numpy()


def _object_logits(centre: np.ndarray, wh: np.ndarray, generator: torch.Generator) -> Tensor:
    """Three candidates (3, h, w), each a little smaller than the one before."""
    axis = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = torch.hypot((x - centre[0]) / (wh[0] / 2), (y - centre[1]) / (wh[1] / 2))
    wobble = _noise(12, generator)
    inside = torch.stack([0.95 - 0.12 * i - distance + 0.15 * wobble[i] for i in range(3)])
    return (12 * inside.clamp(min=-1) + 0.3 * _noise(64, generator) * (inside > -1)).float()


def _noise(cells: int, generator: torch.Generator) -> Tensor:
    coarse = torch.randn(1, 3, cells, cells, generator=generator)
    return F.interpolate(coarse, (GRID, GRID), mode="bicubic", align_corners=False)[0]

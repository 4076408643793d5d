"""What the benchmarks segment: pictures and prompts, with logits given where weights are random.

The public architectures run here with random weights, whose masks are noise. Noise has a thousand
times the runs of a real mask, so timings of everything after the decoder would mean nothing.
Instead the decoder does its work and its answer is replaced by smooth logits, for every peer alike.
A trained model (``nano``, or a checkpoint) gets a photograph with boxes of its objects instead, and
its own masks count.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image as PilImage
from torch import Tensor

from sam2_blocks.values import Hw

PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "pictures" / "coffee.jpg"
JITTER = 0.05  # of a box's side, so that a hundred boxes around four objects differ

GRID = 256
# Square root of a mask's share of the picture, smallest and largest.
SIDES = {"small": (0.05, 0.45), "large": (0.73, 0.83)}


@dataclass(frozen=True, eq=False)
class Scene:
    """Prompts on one picture: boxes, or one click.

    Attributes:
        pixels: uint8, (H, W, 3), RGB; scenes of one size and kind share one array.
        boxes_xyxy: float32, (N, 4), pixels.
        click_xy: float32, (2,), a point to prompt with instead of the boxes, or None.
        logits: float32, (N, 3, h, w), what the decoder is made to answer; None: its own answer.
        iou: float32, (N, 3), the predicted IoU that goes with them, or None.
    """

    pixels: np.ndarray
    boxes_xyxy: np.ndarray
    click_xy: np.ndarray | None = None
    logits: Tensor | None = None
    iou: Tensor | None = None

    @property
    def image_hw(self) -> Hw:
        """Size of the picture."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def clicked(self) -> Scene:
        """Return the first object with a click in its middle instead of its box."""
        first = self.boxes_xyxy[:1]
        middle = (first[0, :2] + first[0, 2:]) / 2
        logits, iou = (None if x is None else x[:1] for x in (self.logits, self.iou))
        return replace(self, boxes_xyxy=first, click_xy=middle, logits=logits, iou=iou)


def make_scene(image_hw: Hw, count: int, size: str, *, device: str = "cpu", seed: int = 0) -> Scene:
    """Scatter wobbly ellipses over a smooth random picture.

    Args:
        image_hw: size of the picture.
        count: number of objects.
        size: ``small`` (as in COCO) or ``large`` (about 43 % of the picture).
        device: of the logits.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    smallest, largest = np.log(SIDES[size])
    side = np.exp(rng.uniform(smallest, largest, count))
    stretch = np.exp(rng.uniform(-0.35, 0.35, count))
    wh = np.clip(np.stack([side * stretch, side / stretch], 1), 0.02, 0.95)
    centre = wh / 2 + rng.uniform(0, 1, (count, 2)) * (1 - wh)
    boxes = np.concatenate([centre - wh / 2, centre + wh / 2], 1) * np.tile(image_hw[::-1], 2)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([_object_logits(c, s, generator) for c, s in zip(centre, wh, strict=True)])
    iou = torch.rand(count, 3, generator=generator) * 0.3 + 0.65
    return Scene(
        make_picture(image_hw, seed),
        boxes.astype(np.float32),
        logits=logits.to(device),
        iou=iou.to(device),
    )


def make_photo_scene(image_hw: Hw, count: int, seed: int = 0) -> Scene:
    """Scale a photograph and put boxes around its objects, again and again with some jitter."""
    detections = json.loads(PHOTOGRAPH.with_suffix(".json").read_text())["detections"]
    with PilImage.open(PHOTOGRAPH) as photograph:
        scale = np.tile(np.array(image_hw[::-1]) / photograph.size, 2)
    boxes = np.resize(np.array([d["box_xyxy"] for d in detections]) * scale, (count, 4))
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + np.random.default_rng(seed).uniform(-JITTER, JITTER, (count, 4)) * sides
    boxes = boxes.clip(0, np.tile(image_hw[::-1], 2) - 1)
    return Scene(scale_photograph(image_hw), boxes.astype(np.float32))


@functools.lru_cache(maxsize=4)
def make_picture(image_hw: Hw, seed: int) -> np.ndarray:
    """Make a smooth random picture, uint8 (H, W, 3), that a JPEG compresses like a photograph."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    fine = torch.rand(1, 3, 90, 120, generator=generator)
    up = [F.interpolate(x, image_hw, mode="bilinear", align_corners=False) for x in (coarse, fine)]
    return (up[0] * 0.7 + up[1] * 0.3)[0].mul(255).byte().permute(1, 2, 0).contiguous().numpy()


@functools.lru_cache(maxsize=4)
def scale_photograph(image_hw: Hw) -> np.ndarray:
    """Return the photograph at this size, uint8 (H, W, 3)."""
    with PilImage.open(PHOTOGRAPH) as photograph:
        scaled = photograph.convert("RGB").resize(image_hw[::-1], PilImage.Resampling.BICUBIC)
    return np.array(scaled)


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

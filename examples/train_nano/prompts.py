"""Prompts for scenes: which segments, their boxes, and clicks.

Axis letters: B scenes, K prompts, P points of a prompt, S pixels of a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from examples.train_nano.bank import Dice, box_blur
from examples.train_nano.scenes import Scene


@dataclass(frozen=True)
class Prompts:
    """Coords (B, K, P, 2), labels (B, K, P), targets (B, K, S, S) in 0..1, valid (B, K) bool."""

    coords: Tensor
    labels: Tensor
    targets: Tensor
    valid: Tensor


def choose_segments(
    dice: Dice, scene: Scene, count: int, least: float = 0.004
) -> tuple[Tensor, Tensor]:
    """Choose ``count`` different segments of each scene, each at least ``least`` of the picture.

    Returns:
        The ids each of them is made of (B, count, I) bool, and whether it exists (B, count) bool.
    """
    b, size = len(scene.ids), scene.ids.shape[-1]
    total = scene.member.shape[-1]
    area = torch.zeros(b, total, device=scene.ids.device)
    area.scatter_add_(
        1, scene.ids.flatten(1), torch.ones_like(scene.ids, dtype=torch.float).flatten(1)
    )
    member = scene.member & (area > 0)[:, None]  # what is hidden does not tell two segments apart
    share = (member.float() * area[:, None]).sum(-1) / size**2
    family = torch.arange(member.shape[1], device=area.device) >= total
    fresh = ~family | (member.sum(-1) != torch.cat([member[:, :total].sum(-1)] * 2, 1))
    good = (share > least) & (share < 0.98) & fresh
    score = dice.rand(*share.shape) * (0.3 + share.clamp(max=0.1).sqrt()) * good
    best = score.topk(count, 1).indices
    rows = torch.arange(b, device=area.device)[:, None]
    return scene.member[rows, best], good[rows, best]


def paint_segments(chosen: Tensor, ids: Tensor) -> Tensor:
    """Draw segments (B, count, I) of pictures of ids (B, S, S) as float (B, count, S, S)."""
    flat = ids.flatten(1)[:, None].expand(-1, chosen.shape[1], -1)
    return chosen.gather(2, flat).view(*chosen.shape[:2], *ids.shape[1:]).float()


def pick_segments(
    dice: Dice, scene: Scene, count: int, least: float = 0.004
) -> tuple[Tensor, Tensor]:
    """Choose segments as :func:`choose_segments` does, and draw them.

    Returns:
        Targets (B, count, S, S) float, and which of them exist (B, count) bool.
    """
    chosen, valid = choose_segments(dice, scene, count, least)
    return paint_segments(chosen, scene.ids), valid


def boxes_of(targets: Tensor) -> Tensor:
    """Bound masks (B, K, S, S) by corners (B, K, 2, 2) in pixel edges; zeros for an empty mask."""
    corners = []
    for axis in (-2, -1):  # any over rows leaves columns
        hit = (targets > 0.5).any(axis)
        size = hit.shape[-1]
        first, last = hit.float().argmax(-1), size - hit.flip(-1).float().argmax(-1)
        corners.append(torch.stack([first, last], -1) * hit.any(-1, keepdim=True))
    return torch.stack(corners, -1).float()


def click(dice: Dice, region: Tensor, *, middle: float = 0.5) -> Tensor:
    """Pick a pixel of each region (B, K, S, S), deep inside with chance ``middle``; (B, K, 2)."""
    b, k, size, _ = region.shape
    depth = box_blur(F.avg_pool2d(region, 4), 2 * (size // 64) + 1, zeros_around=True)
    depth = F.interpolate(depth, size=(size, size), mode="bilinear")
    deep = dice.rand(b, k, 1, 1) < middle
    chance = dice.rand(b, k, size, size)
    score = region * torch.where(deep, depth + 0.05 * chance, chance)
    best = score.flatten(2).argmax(-1)
    return torch.stack([best % size, best // size], -1).float() + 0.5


def make_prompts(dice: Dice, scene: Scene, count: int, box_share: float = 0.65) -> Prompts:
    """Prompt ``count`` segments a scene with a box (half of them jittered) or one click."""
    targets, valid = pick_segments(dice, scene, count)
    size = targets.shape[-1]
    box = boxes_of(targets)
    extent = (box[:, :, 1] - box[:, :, 0])[:, :, None]
    b = len(targets)
    jitter = (
        dice.chance(0.5, b, count, 1, 1)
        * 0.08
        * dice.rand(b, count, 1, 1)
        * dice.randn(b, count, 2, 2)
    )
    box = (box + jitter * extent).clamp(0, size)
    point = click(dice, targets)
    point = torch.stack([point, torch.zeros_like(point)], 2)
    use_box = dice.rand(b, count) < box_share
    coords = torch.where(use_box[..., None, None], box, point)
    corners, single = torch.tensor([[2, 3], [1, -1]], device=box.device)
    return Prompts(coords, torch.where(use_box[..., None], corners, single), targets, valid)

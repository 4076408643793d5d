"""Clips kept as pictures on the device, changed anew each time they are used.

What a GPU lacks is clips, not time: each is cropped, mirrored, recoloured, sped up and turned round
in time, and its features are computed then. All choices of a batch are made on the device at once.

Axis letters: B clips, T frames, N objects, I ids, S pixels of a side.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from examples.train_nano.bank import Dice
from examples.train_nano.prompts import choose_segments
from examples.train_nano.scenes import GROUND, Scene
from examples.train_nano.video_model import Features, Tracker, encode
from examples.train_nano.video_painters import IDS, PAUSE_S, Painters
from examples.train_nano.video_pool import Batch, Stage, least_pixels, sure_of

AT_ONCE = 128  # frames encoded at once
EACH = 4  # most objects of a clip
EXPECTED = 2.5  # objects found in a clip, about
FASTEST = 3  # most frames of a clip from one tracked frame to the next


class Shelf:
    """The newest clips of some painters, on a device.

    Args:
        painters: who makes clips.
        dice: what is random here; its device holds the clips.
        room: clips kept; beyond it the oldest make way.
    """

    def __init__(self, painters: Painters, dice: Dice, room: int) -> None:
        self._painters, self._dice, self._room = painters, dice, room
        frames, size, device = painters.frames, painters.size, dice.device
        shape = (room, frames, 3, size, size)
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        self._ids = torch.empty((room, frames, size, size), dtype=torch.uint8, device=device)
        self._member = torch.empty((room, 2 * IDS, IDS), dtype=torch.bool, device=device)
        self.size = size
        self.clips = 0  # that ever came

    def take_in(self, least: int = 1) -> None:
        """Take what is painted by now; wait until there were ``least`` clips."""
        while True:
            with self._painters.ready() as slots:
                for slot in slots:
                    row = self.clips % self._room
                    self._images[row].copy_(slot.images)
                    self._ids[row].copy_(slot.ids)
                    self._member[row].copy_(slot.member)
                    self.clips += 1
            if self.clips >= least:
                return
            time.sleep(PAUSE_S)

    def __len__(self) -> int:
        return min(self.clips, self._room)

    def pictures(self, count: int) -> Tensor:
        """Give some frames, (count, 3, S, S) in 0..1."""
        rows = torch.arange(count, device=self._dice.device) % len(self)
        return self._images[rows, 0].float() / 255

    @torch.no_grad()
    def batch(self, tracker: Tracker, stage: Stage) -> Batch:
        """Choose clips, a stretch of each, how to change them, and objects of its first frame."""
        rows = self._dice.randint(len(self), stage.clips)[:, None]
        frames = stretches(self._dice, stage.clips, self._painters.frames, stage.frames)
        images, ids = reframe(self._dice, self._images[rows, frames], self._ids[rows, frames])
        images = recolour(self._dice, images)
        chosen, clip_of = choose(self._dice, ids, self._member[rows[:, 0]])
        if not len(chosen):
            return self.batch(tracker, stage)
        chosen, clip_of = chosen[: stage.objects], clip_of[: stage.objects]
        levels = self._encode(tracker, images)
        features = [
            Features(tuple(level[:, t][clip_of] for level in levels)) for t in range(stage.frames)
        ]
        painted = torch.stack(
            [paint(chosen, ids[:, t][clip_of])[:, None] for t in range(stage.frames)]
        )
        area, least = painted.sum((-1, -2)), least_pixels(self._painters.size)
        return Batch(features, painted, area >= least, sure_of(area, least))

    def _encode(self, tracker: Tracker, images: Tensor) -> list[Tensor]:
        """Features of images (B, T, 3, S, S): levels (B, T, C, h, w)."""
        several = torch.split(images.flatten(0, 1), AT_ONCE)
        parts = [encode(tracker.model, some).levels for some in several]
        joined = (torch.cat(level) for level in zip(*parts, strict=True))
        return [level.view(*images.shape[:2], *level.shape[1:]) for level in joined]


def stretches(dice: Dice, clips: int, there: int, wanted: int) -> Tensor:
    """Draw ``wanted`` of ``there`` frames of each clip, evenly spaced, either way; (B, T)."""
    fastest = min(FASTEST, (there - 1) // (wanted - 1))
    stride = 1 + (dice.rand(clips, 1) ** 2 * fastest).long()
    start = (dice.rand(clips, 1) * (there - (wanted - 1) * stride)).long()
    frames = start + stride * torch.arange(wanted, device=dice.device)
    return torch.where(dice.rand(clips, 1) < 0.5, frames, frames.flip(1))


def reframe(dice: Dice, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Crop, mirror, and let the crop wander.

    Args:
        dice: what is random.
        images: (B, T, 3, S, S) uint8.
        ids: (B, T, S, S) uint8.

    Returns:
        Images, float in 0..1, and ids, of the same shapes.
    """
    b, t, _, size, _ = images.shape
    zoom = torch.where(dice.rand(b, 1, 1) < 0.5, dice.between(0.6, 1.0, b, 1, 1), 1.0)
    ends = dice.between(-1, 1, b, 2, 2) * (1 - zoom)  # of the crop's way
    moves = dice.rand(b, 1, 1) < 0.5
    share = torch.linspace(0, 1, t, device=dice.device)[:, None] * moves  # (B, T, 1)
    centre = torch.lerp(ends[:, :1], ends[:, 1:], share)
    mirror = 1 - 2 * (dice.rand(b, 1, 2) < torch.tensor([0.5, 0.2], device=dice.device)).float()
    ramp = (2 * torch.arange(size, device=dice.device) + 1) / size - 1
    at = (zoom * mirror)[..., None] * ramp + centre[..., None]  # (B, T, 2, S): x, then y
    x, y = at.flatten(0, 1).unbind(1)
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    flat = images.flatten(0, 1).float() / 255
    seen = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    same = ids.flatten(0, 1)[:, None].float()
    same = F.grid_sample(same, grid, "nearest", "border", align_corners=False)
    return seen.view(images.shape), same.round().byte().view(ids.shape)


def recolour(dice: Dice, images: Tensor) -> Tensor:
    """Change light and colours of clips (B, T, 3, S, S)."""
    b = len(images)
    gain = torch.exp(0.08 * dice.randn(b, 1, 3, 1, 1) + 0.1 * dice.randn(b, 1, 1, 1, 1))
    return (images.clamp(0, 1) ** torch.exp(0.2 * dice.randn(b, 1, 1, 1, 1)) * gain).clamp(0, 1)


def choose(dice: Dice, ids: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Choose objects, rarely ground, seen on the first frame, as `Pool` does.

    Args:
        dice: what is random.
        ids: (B, T, S, S) uint8.
        member: (B, J, I) bool.

    Returns:
        What each object is made of, (N, I) bool, and its clip, (N,); in random order.
    """
    b, size = len(ids), ids.shape[-1]
    drop = dice.rand(b, 1, 1) < 0.8
    member = member & ~(drop & member[..., :GROUND].any(-1, keepdim=True))
    scene = Scene(ids[:, 0], ids[:, 0].long(), member)
    chosen, valid = choose_segments(dice, scene, 3 * EACH, least=0.006)
    areas = torch.stack([(ids == i).flatten(2).sum(-1) for i in range(IDS)], -1).float()
    least_seen = (areas @ chosen.float().transpose(1, 2)).amin(1)  # (B, 3 EACH)
    later = (least_seen >= least_pixels(size)) & (dice.rand(b, 1) < 0.5)
    order = (2 * (~valid).long() + later.long()).sort(dim=1, stable=True).indices[:, :EACH]
    found = valid.gather(1, order).flatten()
    rows = torch.arange(b, device=ids.device)[:, None]
    shuffled = dice.rand(b * EACH).argsort()
    at = shuffled[found[shuffled]]
    return chosen[rows, order].flatten(0, 1)[at], at // EACH


def paint(chosen: Tensor, ids: Tensor) -> Tensor:
    """Draw objects (N, I) on their own pictures of ids (N, S, S); float (N, S, S)."""
    return chosen.gather(1, ids.long().flatten(1)).view(ids.shape).float()


def stage_for(objects: int, size: int, frames: int) -> Stage:
    """A stage that tracks up to ``objects`` in all, of as many clips as have about that many."""
    return Stage(0.0, size, frames, max(1, round(objects / EXPECTED)), objects)

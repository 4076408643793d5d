"""What the memory is trained on: a pool of clips, known by their features, and objects in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from examples.train_nano.bank import Dice
from examples.train_nano.prompts import choose_segments, paint_segments
from examples.train_nano.scenes import GROUND
from examples.train_nano.video_model import Features, Tracker, encode
from examples.train_nano.video_scenes import Clip, VideoScenes

ABSENCE = 3.0  # what a frame without the object counts in the loss of its score
HIDING = 0.35  # share of the clips in which something is hidden for some frames
SPARE = 4  # frames of a clip beyond those tracked
KEPT = {128: 192, 256: 128}  # clips kept for reuse, by pixels of a side
FEWEST, MANY = 12, 24  # clips before the first step; from then on one a step up to this number
FRESH_EVERY = 3  # steps between new clips after that


@dataclass(frozen=True)
class Stage:
    """What applies after a ``share`` of the time."""

    share: float
    size: int  # pixels of a side
    frames: int  # tracked in a step
    clips: int  # a step
    objects: int  # a clip


def least_pixels(size: int) -> float:
    """From how many pixels on an object counts as seen."""
    return 5e-4 * size**2


def sure_of(area: Tensor, least: float) -> Tensor:
    """Say which areas in pixels are no slivers: either nothing, or well over the ``least``."""
    return (area == 0) | (area >= 2 * least)


def hides_for(dice: Dice, frames: int) -> int:
    """Draw for how many of a clip's ``frames`` something is hidden; often 0."""
    hides = float(dice.rand(1)) < HIDING
    return 1 + int(dice.randint(frames - 4, 1)) if hides else 0


@dataclass(frozen=True)
class Truth:
    """One frame of a `Batch`: target (N, 1, S, S), present and sure (N, 1)."""

    target: Tensor
    present: Tensor
    sure: Tensor


@dataclass(frozen=True)
class Batch:
    """Objects over time.

    Attributes:
        features: T times (N, C, h, w).
        targets: (T, N, 1, S, S) in 0..1.
        present: whether an object counts as seen, (T, N, 1) bool.
        sure: whether it is more than a sliver, or quite out of sight, (T, N, 1) bool.
    """

    features: list[Features]
    targets: Tensor
    present: Tensor
    sure: Tensor

    def frame(self, t: int) -> tuple[Features, Truth]:
        """One frame's features, and what is true of it."""
        return self.features[t], Truth(self.targets[t], self.present[t], self.sure[t])


@dataclass(frozen=True)
class Stored:
    """A clip without its pictures."""

    features: Features
    clip: Clip


class Pool:
    """Clips whose features were computed once; the oldest are replaced all the time."""

    def __init__(self, scenes: VideoScenes, tracker: Tracker, stage: Stage) -> None:
        self._scenes, self._tracker, self.stage = scenes, tracker, stage
        self._kept: list[Stored] = []
        self._added = 0
        for _ in range(FEWEST):
            self.add()

    def refresh(self, step: int) -> None:
        """Make a clip if it is time for one."""
        if step % FRESH_EVERY == 0 or len(self._kept) < MANY:
            self.add()

    def add(self) -> None:
        """Make one clip, in the place of the oldest when the pool is full."""
        frames = self.stage.frames + SPARE
        hidden = hides_for(self._scenes, frames)
        clip = self._scenes.clip(frames, self.stage.size, hidden=hidden)
        features = encode(self._tracker.model, clip.images).to(torch.float16)
        stored = Stored(features, Clip(clip.images[:, :0], clip.ids, clip.member))
        if len(self._kept) < KEPT.get(self.stage.size, 64):
            self._kept.append(stored)
        else:
            self._kept[self._added % len(self._kept)] = stored
        self._added += 1

    def batch(self) -> Batch:
        """Choose clips, a stretch of each, its direction, and objects seen on its first frame."""
        features: list[Features] = []
        targets: list[Tensor] = []
        while not targets:
            for _ in range(self.stage.clips):
                stored = self._kept[int(self._scenes.randint(len(self._kept), 1))]
                frames = self._stretch()
                chosen = self._choose(stored.clip, frames)
                if len(chosen):
                    features.append(stored.features[frames])
                    ids = stored.clip.ids[frames].long()
                    targets.append(paint_segments(chosen.expand(len(ids), -1, -1), ids))
        counts = torch.tensor([t.shape[1] for t in targets])
        rows = torch.repeat_interleave(torch.arange(len(targets)), counts)
        by_frame = []
        for t in range(self.stage.frames):
            levels = zip(*(f.levels for f in features), strict=True)
            stacked = tuple(torch.stack([v[t] for v in level]).float()[rows] for level in levels)
            by_frame.append(Features(stacked))
        painted = torch.cat(targets, 1)[:, :, None]
        area, least = painted.sum((-1, -2)), least_pixels(self.stage.size)
        return Batch(by_frame, painted, area >= least, sure_of(area, least))

    def _stretch(self) -> Tensor:
        """Draw which frames to track: later or earlier ones, forwards or backwards."""
        start = int(self._scenes.randint(SPARE + 1, 1))
        frames = torch.arange(start, start + self.stage.frames)
        return frames.flip(0) if float(self._scenes.rand(1)) < 0.5 else frames

    def _choose(self, clip: Clip, frames: Tensor) -> Tensor:
        """Choose objects, rarely ground, seen on the first of ``frames``; (K, I) bool.

        Half of the time those come first that are out of sight on some frame.
        """
        member = clip.member.clone()
        if float(self._scenes.rand(1)) < 0.8:
            member[member[:, :GROUND].any(-1)] = False
        scene = Clip(clip.images, clip.ids, member).frame(int(frames[0]))
        count = self.stage.objects
        chosen, valid = choose_segments(self._scenes, scene, 3 * count, least=0.006)
        found = chosen[valid]
        if float(self._scenes.rand(1)) < 0.5:
            pixels = F.one_hot(clip.ids[frames].long().flatten(1), found.shape[-1]).sum(1)
            areas = pixels.float() @ found.float().T  # (T, K)
            stays = areas.amin(0) >= least_pixels(self.stage.size)
            found = found[stays.long().argsort(stable=True)]
        return found[:count]

"""Check a memory in seconds: all objects of all held-out clips are tracked as one batch.

`video_evaluate` takes minutes on a CPU for the same clips, by SAM 2's own step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from examples.train_nano.evaluate import iou_of
from examples.train_nano.prompts import boxes_of
from examples.train_nano.video_evaluate import (
    FRAMES,
    HELD_OUT_SEED,
    OBJECTS,
    SHOWN,
    boundary_f,
    objects_of,
)
from examples.train_nano.video_model import Features, Memory, Tracker, encode
from examples.train_nano.video_pool import least_pixels
from examples.train_nano.video_scenes import VideoScenes

HeldOut = tuple[NDArray[Any], NDArray[np.bool_]]


def held_out(clips: int, size: int, bank: int = 128) -> list[HeldOut]:
    """Paint `video_evaluate`'s moving clips: images (T, 3, S, S) and masks (T, K, S, S) of each."""
    scenes = VideoScenes(seed=HELD_OUT_SEED, bank=bank)
    painted = []
    for _ in range(clips):
        clip = scenes.clip(FRAMES, size)
        truth = objects_of(scenes, clip, OBJECTS)
        if truth.shape[1]:
            painted.append((clip.images.numpy(), truth.numpy()))
    return painted


@torch.no_grad()
def check(model: SAM2Base, clips: Sequence[HeldOut]) -> dict[str, float]:
    """Track what boxes bound on the first frames, on the model's device.

    Returns:
        Mean J and F where an object is seen, J at some frames, the shares of seen and of lost
        objects that the object score calls so, and its accuracy over all.
    """
    device = next(model.parameters()).device
    images = torch.from_numpy(np.stack([images for images, _ in clips], 1)).to(device)
    truth = torch.from_numpy(np.concatenate([masks for _, masks in clips], 1)).to(device)
    counts = torch.tensor([masks.shape[1] for _, masks in clips], device=device)
    clip_of = torch.arange(len(clips), device=device).repeat_interleave(counts)
    masks, scores = follow(model, images, truth[0], clip_of)
    seen = (truth.flatten(2).sum(-1) >= least_pixels(truth.shape[-1]))[1:]
    masks, truth, said = masks[1:], truth[1:], scores[1:] > 0
    j = torch.stack([iou_of(m, t) for m, t in zip(masks, truth, strict=True)])
    f = torch.stack([boundary_f(m, t) for m, t in zip(masks, truth, strict=True)])
    means = {
        "J": j[seen],
        "F": f[seen],
        "seen": said[seen],
        "lost": ~said[~seen],
        "accuracy": said == seen,
        **{f"J at {t}": j[t - 1][seen[t - 1]] for t in SHOWN},
    }
    figures = {name: round(values.float().mean().item(), 4) for name, values in means.items()}
    return {"objects": truth.shape[1], **figures}


def follow(
    model: SAM2Base, images: Tensor, first: Tensor, clip_of: Tensor
) -> tuple[Tensor, Tensor]:
    """Track N objects by the boxes of their first masks.

    Args:
        model: nano.
        images: (T, B, 3, S, S) in 0..1.
        first: masks of the first frame, (N, S, S).
        clip_of: the clip of each object, (N,).

    Returns:
        Masks (T, N, S, S) bool and object scores (T, N).
    """
    tracker, memory, size = Tracker(model), Memory(), images.shape[-1]
    boxes = boxes_of(first[None].float())[0]
    labels = torch.tensor([[2, 3]], device=boxes.device).expand(len(boxes), 2)
    masks, scores = [], []
    for t, image in enumerate(images):
        features = Features(tuple(level[clip_of] for level in encode(model, image).levels))
        conditioned = tracker.condition(t, features, memory)
        answer = tracker.decode(conditioned, features, None if t else (boxes, labels))
        logits, token = tracker.choose(answer, multimask=t > 0)
        kept = memory.tracked if t else memory.prompted
        kept[t] = tracker.remember(features, logits, token, answer.score > 0)
        full = F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)
        masks.append((full[:, 0] > 0) & (answer.score > 0)[..., None])
        scores.append(answer.score[:, 0])
    return torch.stack(masks), torch.stack(scores)

"""A complete second family of models, on numpy: a mask is what is brighter than the threshold.

It is a plugin: ``segment`` with ``model: threshold:otsu`` works wherever SAM 2 does.
"""

from __future__ import annotations

import hashlib

import numpy as np

from sam2_blocks import Embedding, hookimpl, masks_to_prediction
from sam2_blocks.errors import ModelError
from sam2_blocks.executors import Family, KnownModel
from sam2_blocks.values import ExecutorSpec


def otsu(pixels):
    """The threshold that splits grey values 0 to 255 into the two most even halves."""
    counts = np.bincount(pixels.ravel().astype(np.int64), minlength=256).astype(float)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums / below - (sums[-1] - sums) / (below[-1] - below)
    return int(np.nanargmax(np.nan_to_num(below * (below[-1] - below) * apart**2)))


METHODS = {"otsu": otsu, "mean": np.mean}


class Threshold:
    """Implements `sam2_blocks.executors.Executor`, and nothing else."""

    def __init__(self, model, *, device, dtype):
        name = model.removeprefix("threshold:")
        if name not in METHODS:
            raise ModelError(f"there is no threshold {name!r}; there are {', '.join(METHODS)}.")
        self.spec = ExecutorSpec(name, "cpu", "float32", family="threshold")
        self._threshold_of = METHODS[name]

    def embed(self, images):
        return [self._embed(image) for image in images]

    def _embed(self, image):
        grey = image.pixels.mean(axis=2).astype(np.float32)
        key = f"{self.spec.full_name}/{hashlib.sha256(image.pixels).hexdigest()}"
        return Embedding(grey[None, None], (), image.hw, image.id, key, self.spec)

    def segment(self, items, **options):
        return [self._segment(embedding.image_embed[0, 0], prompts) for embedding, prompts in items]

    def _segment(self, grey, prompts):
        masks = np.zeros((len(prompts), *grey.shape), bool)
        for mask, prompt in zip(masks, prompts.prompts, strict=True):
            x0, y0, x1, y1 = (0, 0, *grey.shape[::-1])
            if prompt.box_xyxy is not None:
                x0, y0, x1, y1 = np.clip(prompt.box_xyxy, 0, [x1, y1, x1, y1]).astype(int)
            part = grey[y0:y1, x0:x1]
            mask[y0:y1, x0:x1] = part > self._threshold_of(part)
        return masks_to_prediction(masks)


@hookimpl
def register_executors():
    return {"threshold": Family(Threshold, exhaustive=True)}


@hookimpl
def register_models():
    return [KnownModel(name=name, family="threshold", weights="none") for name in METHODS]

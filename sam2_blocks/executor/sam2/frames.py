"""Frames of a video to embeddings, with the numbers of the official video predictor.

Not those of pictures: Pillow's bicubic filter on bytes stands where pictures are resized in
float32, and the features are handed out before "no memory" is added to them. So a frame's
embedding has a key of its own, and only a `TrackSession` can read it.
Source: sam2 ``utils/misc.py: _load_img_as_tensor``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor

from sam2_blocks.executor.device.chunks import fill_bucket, map_chunks
from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.executor.sam2.encode import batch_size, embedding_key, own_levels
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.preprocess import MEAN, STD
from sam2_blocks.values import Embedding, Float32Array, Image, UInt8Array

FRAME_VERSION = 1  # part of every frame's key: raise it when the numbers change


def frame_key(image: Image, model: LoadedModel) -> str:
    """Name the content of a frame's embedding; no picture's embedding has this name."""
    made_by, _, digest = embedding_key(image, model).rpartition("/")
    return f"{made_by}/frame{FRAME_VERSION}/{digest}"


def embed_frames(
    model: LoadedModel, images: Sequence[Image], keys: Sequence[str]
) -> list[Embedding]:
    """Encode frames of any sizes.

    Args:
        model: the network.
        images: the frames.
        keys: their content keys, as `frame_key` makes them.
    """

    def encode(chunk: Sequence[tuple[Image, str]]) -> list[Embedding]:
        with torch.inference_mode():
            batch = frames_to_batch([image.pixels for image, _ in chunk], model)
            if model.has_fixed_shapes("encoder"):
                batch = torch.stack(fill_bucket(batch.unbind(), batch_size(model)))
        with model.computing():
            levels = [level.to(model.dtype) for level in model.frame_encoder(batch)]
        return [
            own_levels(model, image, key, [level[b : b + 1] for level in levels])
            for b, (image, key) in enumerate(chunk)
        ]

    return map_chunks(encode, list(zip(images, keys, strict=True)), batch_size(model))


def frames_to_batch(frames: Sequence[UInt8Array], model: LoadedModel) -> Tensor:
    """Resize and normalise frames: float32, (B, 3, S, S)."""
    side = (model.image_size, model.image_size)
    resized = [
        np.asarray(Pil.fromarray(pixels).resize(side, Pil.Resampling.BICUBIC)) for pixels in frames
    ]
    bytes_in = upload(np.stack(resized), model.device).permute(0, 3, 1, 2)  # (B, 3, S, S)
    table = upload(_normalised(), model.device)  # (3, 256)
    channels = [table[c][bytes_in[:, c].long()] for c in range(3)]
    return torch.stack(channels, 1)


@functools.cache
def _normalised() -> Float32Array:
    """What each byte of each channel becomes, rounded as the official predictor rounds it."""
    values = (np.arange(256) / 255.0).astype(np.float32)
    mean, std = (np.array(x, np.float32)[:, None] for x in (MEAN, STD))
    table: Float32Array = (values - mean) / std
    return table

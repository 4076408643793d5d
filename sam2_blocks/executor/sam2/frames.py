"""Frames of a video to embeddings, with the numbers of the official video predictor.

Not those of pictures: Pillow's bicubic filter on bytes stands where pictures are resized in
float32, and the features are handed out before "no memory" is added to them. So a frame's
embedding has a key of its own, and only a `TrackSession` can read it.
Source: sam2 ``utils/misc.py: _load_img_as_tensor``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor

from sam2_blocks.executor.device.chunks import map_chunks
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.executor.sam2.encode import embedding_key, own_levels
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.preprocess import MEAN, STD
from sam2_blocks.values import Embedding, Image, UInt8Array

FRAME_VERSION = 1  # part of every frame's key: raise it when the numbers change


def frame_key(image: Image, model: LoadedModel) -> str:
    """Name the content of a frame's embedding, which is not that of the same picture.

    Args:
        image: the frame.
        model: the network.

    Returns:
        A key like that of `embedding_key`, which no picture's embedding has.
    """
    made_by, _, digest = embedding_key(image, model).rpartition("/")
    return f"{made_by}/frame{FRAME_VERSION}/{digest}"


def unnamed_key(model: LoadedModel) -> str:
    """Name the embedding of a frame that nobody looks up: to hash its content takes time."""
    return f"{model.key}/frame{FRAME_VERSION}/unnamed"


def embed_frame(
    model: LoadedModel, image: Image, *, key: str, encoder: TensorFunction | None = None
) -> Embedding:
    """Encode a frame.

    Args:
        model: the network.
        image: the frame.
        key: its content key, as `frame_key` makes it, or `unnamed_key`.
        encoder: in place of the model's own; see `LoadedModel.split_frame_encoder`.

    Raises:
        ModelError: if the device has not enough memory.
    """

    def encode(frames: Sequence[Image]) -> list[Embedding]:
        batch = frames_to_batch([frame.pixels for frame in frames], model)
        with model.computing():
            run = encoder or model.frame_encoder  # which is made in this scope the first time
            levels = [level.to(model.dtype) for level in run(batch)]
        return [own_levels(model, image, key, levels)]

    [embedding] = map_chunks(encode, [image], 1)
    return embedding


@torch.inference_mode()
def frames_to_batch(frames: Sequence[UInt8Array], model: LoadedModel) -> Tensor:
    """Resize and normalise frames as the official video predictor does.

    Args:
        frames: B times uint8, (H, W, 3), RGB.
        model: says the side S of the square.

    Returns:
        float32, (B, 3, S, S), on the model's device.
    """
    side = (model.image_size, model.image_size)
    resized = [
        np.asarray(Pil.fromarray(pixels).resize(side, Pil.Resampling.BICUBIC)) for pixels in frames
    ]
    bytes_in = upload(np.stack(resized), model.device).permute(0, 3, 1, 2)  # (B, 3, S, S)
    mean, std = (torch.tensor(x, device=model.device).view(3, 1, 1) for x in (MEAN, STD))
    values = bytes_in.to(torch.float32, memory_format=torch.contiguous_format)
    return values.div_(255).sub_(mean).div_(std)

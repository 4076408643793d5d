"""The memory encoder with fewer steps and passes over memory, bit for bit.

A norm in one operation would be faster and round otherwise. That matters here: memories are kept
in bfloat16, and one that falls on the other side changes the frames after it by more than all the
rest of the arithmetic does.
Source: sam2 ``modeling/memory_encoder.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sam2_blocks.executor.sam2.two_way import layer_norm_2d


def encode(encoder: Any, image_embed: Tensor, masks: Tensor) -> Tensor:
    """Run ``MemoryEncoder.forward`` on masks that are scaled already, without its places.

    Args:
        encoder: a ``MemoryEncoder``.
        image_embed: float32, (1, C, h/4, w/4), features of the frame.
        masks: float32, (N, 1, S, S).

    Returns:
        (N, D, h/4, w/4).
    """
    for layer in encoder.mask_downsampler.encoder:
        masks = _run(layer, masks)
    maps = encoder.fuser.proj(encoder.pix_feat_proj(image_embed) + masks)
    for block in encoder.fuser.layers:
        maps = _run_block(block, maps)
    features: Tensor = encoder.out_proj(maps)
    return features


def _run(layer: Any, maps: Tensor) -> Tensor:
    """Run one layer on (N, C, h, w)."""
    if type(layer).__name__ != "LayerNorm2d" or maps.dtype != torch.float32:
        result: Tensor = layer(maps)
        return result
    return layer_norm_2d(layer, maps)


def _run_block(block: Any, maps: Tensor) -> Tensor:
    """Run ``CXBlock.forward`` on (N, C, h, w)."""
    if type(block).__name__ != "CXBlock":
        result: Tensor = block(maps)
        return result
    hidden: Tensor = _run(block.norm, block.dwconv(maps)).permute(0, 2, 3, 1)
    hidden = block.pwconv2(block.act(block.pwconv1(hidden)))
    if block.gamma is not None:
        hidden = block.gamma * hidden
    return maps + hidden.permute(0, 3, 1, 2)

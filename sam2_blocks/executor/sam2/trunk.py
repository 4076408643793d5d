"""The image encoder's forward pass, restated without what pictures do not change.

Upstream resizes the learned places of its patches anew for each picture, makes a position encoding
for each level, which only the memory reads and which this library has at hand, copies windows back
into the picture before it adds them, and spreads each level of the pyramid to the size of the next
before it adds that. Here places are made once, and what is added is added where it lies. The
arithmetic of the upstream modules, bit for bit.
Source: sam2 ``modeling/backbones/hieradet.py``, ``modeling/backbones/image_encoder.py``, and
``modeling/sam2_base.py: forward_image``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sam2_blocks.values import Hw


def is_known(encoder: Any) -> bool:
    """Say whether an image encoder is the one restated here."""
    trunk, neck = encoder.trunk, encoder.neck
    return bool(
        type(encoder).__name__ == "ImageEncoder"
        and type(trunk).__name__ == "Hiera"
        and trunk.return_interm_layers
        and all(type(block).__name__ == "MultiScaleBlock" for block in trunk.blocks)
        and type(neck).__name__ == "FpnNeck"
        and (neck.fpn_interp_model, neck.fuse_type) == ("nearest", "sum")
    )


@contextmanager
def without_positions(encoder: Any) -> Iterator[None]:
    """Scope in which an image encoder makes no position encodings, which only the memory reads.

    Upstream keeps them by the sides of their level. While an encoder is traced these are numbers
    that no later call has, so that 85 MiB of a square of 1024 px would be kept for nobody.
    """
    neck = encoder.neck
    made = neck.position_encoding
    neck.position_encoding = _NoPositions()
    try:
        yield
    finally:
        neck.position_encoding = made


class _NoPositions(nn.Module):
    def forward(self, level: Tensor) -> Tensor:
        return level.new_zeros(0)


def count_patches(trunk: Any, image_size: int) -> Hw:
    """Return how many patches squares of one size are cut into, down and across."""
    convolution = trunk.patch_embed.proj
    sides = zip(convolution.kernel_size, convolution.stride, convolution.padding, strict=True)
    height, width = ((image_size + 2 * pad - kernel) // step + 1 for kernel, step, pad in sides)
    return height, width


def place_patches(trunk: Any, image_size: int) -> Tensor:
    """Resize the learned places of patches for squares of one size: (1, h, w, C)."""
    height, width = count_patches(trunk, image_size)
    with torch.inference_mode(), torch.autocast(trunk.pos_embed.device.type, enabled=False):
        places: Tensor = trunk._get_pos_embed((height, width)).contiguous()
    return places


def encode(network: Any, batch: Tensor, places: Tensor) -> list[Tensor]:
    """Run ``SAM2Base.forward_image``: its feature maps, finest first.

    Args:
        network: one whose image encoder `is_known`.
        batch: float32, (B, 3, S, S).
        places: of its patches, as `place_patches` makes them.
    """
    encoder, decoder = network.image_encoder, network.sam_mask_decoder
    levels = _fuse(encoder.neck, _run_trunk(encoder.trunk, batch, places))
    levels = levels[: len(levels) - encoder.scalp]
    if network.use_high_res_features_in_sam:
        levels[:2] = decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])
    return levels


def _run_trunk(trunk: Any, batch: Tensor, places: Tensor) -> list[Tensor]:
    """Run ``Hiera.forward``: a map (B, C, h, w) of each stage, finest first."""
    tokens = (trunk.patch_embed(batch) + places).contiguous()
    stages = []
    for index, block in enumerate(trunk.blocks):
        tokens = _run_block(block, tokens)
        if index in trunk.stage_ends:
            stages.append(tokens.permute(0, 3, 1, 2))
    # Upstream's first stage never leaves the order of the convolution before it, which makes its
    # norms and sums slow; the neck's convolution rounds by the order that it is given.
    return [stages[0].contiguous(), *stages[1:]]


def _run_block(block: Any, tokens: Tensor) -> Tensor:
    """Run ``MultiScaleBlock.forward`` on (B, h, w, C), without copying windows back."""
    window, (height, width) = block.window_size, tokens.shape[1:3]
    if not window or height % window or width % window:
        whole: Tensor = block(tokens)
        return whole
    normed = block.norm1(tokens)
    if block.dim != block.dim_out:
        tokens = _pool(block.pool, block.proj(normed))
    pieces = normed.view(-1, height // window, window, width // window, window, block.dim)
    found = block.attn(pieces.transpose(2, 3).reshape(-1, window, window, block.dim))
    tokens = _add_windows(tokens, found)
    del normed, pieces, found
    return tokens + _mix(block.mlp, block.norm2(tokens))


def _mix(mlp: Any, tokens: Tensor) -> Tensor:
    """Run ``MLP.forward``, with the activation of four times the tokens in its place."""
    if len(mlp.layers) != 2 or type(mlp.act).__name__ != "GELU" or mlp.act.approximate != "none":
        whole: Tensor = mlp(tokens)
        return whole
    mixed: Tensor = mlp.layers[1](torch.ops.aten.gelu_(mlp.layers[0](tokens)))
    return mixed


def _pool(pool: Any, tokens: Tensor) -> Tensor:
    if pool is None:
        return tokens
    pooled: Tensor = pool(tokens.permute(0, 3, 1, 2))
    return pooled.permute(0, 2, 3, 1)


def _add_windows(tokens: Tensor, windows: Tensor) -> Tensor:
    """Add windows (B * n, side, side, C) to the tokens (B, h, w, C) that they are of."""
    (count, height, width, channels), side = tokens.shape, windows.shape[1]
    grid = (count, height // side, side, width // side, side, channels)
    placed = windows.view(count, height // side, width // side, side, side, channels)
    return (tokens.reshape(grid) + placed.transpose(2, 3)).reshape(tokens.shape)


def _fuse(neck: Any, stages: Sequence[Tensor]) -> list[Tensor]:
    """Run ``FpnNeck.forward``, finest first, without its position encodings."""
    levels: list[Tensor] = []
    for index, convolution in zip(reversed(range(len(stages))), neck.convs, strict=True):
        level = convolution(stages[index])
        if levels and index in neck.fpn_top_down_levels:
            level = _add_coarser(level, levels[-1])
        levels.append(level)
    return levels[::-1]


def _add_coarser(level: Tensor, coarser: Tensor) -> Tensor:
    """Add to each pixel of a level (B, C, h, w), which may be overwritten, the one above it."""
    if level.dtype != torch.float32:
        return level + F.interpolate(coarser.float(), scale_factor=2.0, mode="nearest")
    count, channels, height, width = level.shape
    pixels = level.view(count, channels, height // 2, 2, width // 2, 2)
    pixels.add_(coarser.float()[:, :, :, None, :, None])
    return level

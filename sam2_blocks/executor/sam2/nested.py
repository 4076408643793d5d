"""The image encoder's forward pass, restated for a compiler that makes kernels of what it follows.

Upstream cuts the picture into windows and joins it again in each block, turns channels to the front
and back for each pool, and takes queries, keys and values apart after one product: an eighth of the
time, and a fifth of the memory, is for copies. Here tokens lie in rows, one window each, for as
long as blocks have the same windows, and in each row so that a pool needs no copy either: see
`_Order`. Queries, keys and values are three products, and two convolutions of one pixel in a row
are one. Sums are rounded in another order than upstream's, so features differ in the last bits.
Source: sam2 ``modeling/backbones/hieradet.py``, ``modeling/backbones/image_encoder.py``, and
``modeling/sam2_base.py: forward_image``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sam2_blocks.executor.sam2 import trunk


def is_known(encoder: Any, image_size: int) -> bool:
    """Say whether an image encoder is one restated here, for squares of so many pixels."""
    return (
        trunk.is_known(encoder)
        and _are_known_pools(encoder.trunk, image_size)
        and all(_is_of_one_pixel(convolution.conv) for convolution in encoder.neck.convs)
    )


def _are_known_pools(encoder: Any, image_size: int) -> bool:
    """Say whether each pool takes whole squares of four tokens, of windows as of pictures."""
    sides = trunk.count_patches(encoder, image_size)
    for block in encoder.blocks:
        if not block.q_stride:
            continue
        window = int(block.window_size)
        whole = window > 0 and not any(side % 2 for side in (window, *sides))
        if not whole or tuple(block.q_stride) != (2, 2) or block.dim == block.dim_out:
            return False
        sides = sides[0] // 2, sides[1] // 2
    return True


def _is_of_one_pixel(convolution: nn.Conv2d) -> bool:
    shape = convolution.kernel_size, convolution.stride, convolution.padding
    return shape == ((1, 1), (1, 1), (0, 0))


def encode(network: Any, batch: Tensor) -> list[Tensor]:
    """Run ``SAM2Base.forward_image``: its feature maps (B, C, h, w), finest first.

    Args:
        network: one whose image encoder `is_known`.
        batch: float32, (B, 3, S, S).
    """
    encoder, decoder = network.image_encoder, network.sam_mask_decoder
    fine = [decoder.conv_s0, decoder.conv_s1] if network.use_high_res_features_in_sam else []
    levels = _fuse(encoder.neck, _run_trunk(encoder.trunk, batch), fine)
    return [level.permute(0, 3, 1, 2) for level in levels[: len(levels) - encoder.scalp]]


class _Order(NamedTuple):
    """How the tokens of pictures lie in rows (N, L, C), all of one window in each.

    Windows are nested. A pool makes one token of each square of four, and these lie a quarter of a
    row apart; what is left of a row, a quarter, is a window of half the side in the same order, so
    that the next pool finds its squares, too. Places in the row of a window of four by four::

         0  4  1  5
         8 12  9 13
         2  6  3  7
        10 14 11 15

    A pool takes the greatest of places 0, 4, 8 and 12 to place 0, and leaves places 0 1 over 2 3.

    Attributes:
        height: of a picture, in tokens.
        width: of a picture, in tokens.
        window: side of a window, in tokens; 0 where a row is a whole picture, line by line.
    """

    height: int
    width: int
    window: int

    def fits(self) -> bool:
        """Say whether windows fill pictures."""
        return not self.window or not any(side % self.window for side in self[:2])

    def pooled(self) -> _Order:
        """Return the order in which `_pool` leaves the rows."""
        return _Order(*(side // 2 for side in self))

    def cut(self, tokens: Tensor) -> Tensor:
        """Lay pictures of tokens (B, H, W, C) in rows; what windows have beyond them is zero."""
        channels = tokens.shape[-1]
        if not self.window:
            return tokens.reshape(len(tokens), -1, channels)
        right, below = (-side % self.window for side in (self.width, self.height))
        if right or below:
            tokens = F.pad(tokens, (0, 0, 0, right, 0, below))
        lengths, axes = self._axes()
        turned = tokens.reshape(-1, *lengths, channels).permute(axes)
        return turned.reshape(-1, self.window**2, channels)

    def join(self, rows: Tensor) -> Tensor:
        """Undo `cut`."""
        channels = rows.shape[-1]
        if not self.window:
            return rows.reshape(-1, self.height, self.width, channels)
        lengths, axes = self._axes()
        turned = rows.reshape(-1, *([*lengths, channels][axis - 1] for axis in axes[1:]))
        height, width = (side + -side % self.window for side in self[:2])
        tokens = turned.permute([axes.index(axis) for axis in range(len(axes))])
        return tokens.reshape(-1, height, width, channels)[:, : self.height, : self.width]

    def _axes(self) -> tuple[list[int], list[int]]:
        """Return how pictures are cut, and in which order what is cut lies in rows.

        Each side is cut into windows, and these in halves as often as can be. In a row the last
        halves come first, those of neighbours: they are what a pool makes one.

        Returns:
            The lengths into which height and then width are cut, and the order of all axes, those
            of pictures (0) and of channels (the last) among them.
        """
        halvings = (self.window & -self.window).bit_length() - 1
        inside = [self.window >> halvings, *[2] * halvings]
        down, across = ([-(-side // self.window), *inside] for side in self[:2])
        each = len(down)
        pairs = [(axis, axis + each) for axis in (1, *range(each, 1, -1))]
        return down + across, [0, *(axis for pair in pairs for axis in pair), 1 + 2 * each]


def _pool(rows: Tensor) -> Tensor:
    """Take the greatest of each square of four tokens of rows (N, L, C): (N, L / 4, C)."""
    count, length, channels = rows.shape
    quarters = rows.reshape(count, 4, length // 4 * channels)
    return quarters.amax(1).reshape(count, length // 4, channels)


def _run_trunk(encoder: Any, batch: Tensor) -> list[Tensor]:
    """Run ``Hiera.forward``: the tokens (B, h, w, C) of each stage, finest first."""
    tokens = encoder.patch_embed(batch)
    tokens = tokens + encoder._get_pos_embed(tokens.shape[1:3])
    height, width = tokens.shape[1:3]
    order = _Order(height, width, window=0)
    rows = order.cut(tokens)
    stages = []
    for index, block in enumerate(encoder.blocks):
        wanted = _best_order(block, order)
        if wanted != order:
            rows, order = wanted.cut(order.join(rows)), wanted
        rows, order = _run_block(block, rows, order)
        if index in encoder.stage_ends:
            stages.append(order.join(rows))
    return stages


def _best_order(block: Any, order: _Order) -> _Order:
    """Return the order to have tokens in while a block runs: that of its windows if they fit.

    If they do not, what they have beyond the picture is only there while the block attends, and
    a pool needs no more than squares of four.
    """
    if not block.window_size:
        return order
    wanted = order._replace(window=block.window_size)
    return wanted if wanted.fits() else order._replace(window=2 if block.q_stride else 0)


def _run_block(block: Any, rows: Tensor, order: _Order) -> tuple[Tensor, _Order]:
    """Run ``MultiScaleBlock.forward``."""
    normed = block.norm1(rows)
    found, order = _attend_windows(block, normed, order)
    if block.dim != block.dim_out:
        rows = block.proj(normed)
    if block.q_stride:
        rows = _pool(rows)
    rows = rows + block.attn.proj(found)
    return rows + block.mlp(block.norm2(rows)), order


def _attend_windows(block: Any, rows: Tensor, order: _Order) -> tuple[Tensor, _Order]:
    """Run a block's attention but for its last product, and say how the rows lie after it."""
    if not block.window_size:  # all of a picture, in whatever order
        whole = rows.reshape(-1, order.height * order.width, rows.shape[-1])
        return _attend(block.attn, whole).reshape(rows.shape[0], rows.shape[1], -1), order
    own = order._replace(window=block.window_size)
    found = _attend(block.attn, rows if own == order else own.cut(order.join(rows)))
    if block.q_stride:
        own, order = own.pooled(), order.pooled()
    return (found if own == order else order.cut(own.join(found))), order


def _attend(attention: Any, rows: Tensor) -> Tensor:
    """Run ``MultiScaleAttention.forward`` in each row, but for its last product."""
    queries, keys, values = _project(attention.qkv, rows)
    if attention.q_pool:
        queries = _pool(queries)
    queries, keys, values = (_split_heads(attention, x) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


def _split_heads(attention: Any, x: Tensor) -> Tensor:
    """Turn rows (N, L, C) into (N, heads, L, C / heads)."""
    count, length, channels = x.shape
    heads = attention.num_heads
    return x.reshape(count, length, heads, channels // heads).transpose(1, 2)


def _project(layer: nn.Linear, rows: Tensor) -> list[Tensor]:
    """Return queries, keys and values."""
    weights, biases = layer.weight.chunk(3), layer.bias.chunk(3)
    return [F.linear(rows, *pair) for pair in zip(weights, biases, strict=True)]


def _fuse(neck: Any, stages: Sequence[Tensor], fine: Sequence[nn.Conv2d]) -> list[Tensor]:
    """Run ``FpnNeck.forward`` and the decoder's convolutions of its finest levels.

    Args:
        neck: the pyramid.
        stages: tokens (B, h, w, C) of each stage, finest first.
        fine: convolutions of the finest levels, finest first.

    Returns:
        The levels (B, h, w, C), finest first.
    """
    fused = {index for index in neck.fpn_top_down_levels if index < len(stages) - 1}
    read: list[Tensor] = []  # by the next finer level
    levels: list[Tensor] = []
    for index, convolution in zip(reversed(range(len(stages))), neck.convs, strict=True):
        layers = [convolution.conv, *fine[index : index + 1]]
        at_once = len(layers) if fused.isdisjoint({index, index - 1}) else 1
        level = _convolve(layers[:at_once], stages[index])
        if index in fused:
            level = _add_coarser(level, read[-1])
        read.append(level)
        levels.append(_convolve(layers[at_once:], level))
    return levels[::-1]


def _convolve(layers: Sequence[nn.Conv2d], tokens: Tensor) -> Tensor:
    """Run no, one or two convolutions of one pixel on (B, h, w, C); two as one."""
    products: list[Any] = [(layer.weight.flatten(1), layer.bias) for layer in layers]
    if len(products) == 2:
        (weight, bias), (after, last) = products
        products = [(after @ weight, after @ bias + last)]
    return F.linear(tokens, *products[0]) if products else tokens


def _add_coarser(level: Tensor, coarser: Tensor) -> Tensor:
    """Add to each pixel of a level (B, h, w, C) the one above it."""
    count, height, width, channels = coarser.shape
    pixels = level.reshape(count, height, 2, width, 2, channels)
    return (pixels + coarser.reshape(count, height, 1, width, 1, channels)).reshape(level.shape)

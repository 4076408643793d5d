"""The two-way transformer with fewer products: prompt tokens go to the image, not it to them.

Upstream projects each of 4096 image tokens to a key, a value and a query of C/2 channels, and then
compares it with some nine prompt tokens. Scores and sums are linear in the image, so the prompt
tokens may be taken through the projections instead, head by head: H * T rows of C channels, 72 for
a box, where there were C/2 = 128 of them. A third of the decoder's products goes. Sums are rounded
in another order; in half precision scores would lose digits, and other devices have fused kernels.
Source: sam2 ``modeling/sam/transformer.py: TwoWayTransformer, Attention``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sam2_blocks.executor.sam2.two_way import ImageSide, attend, read_prompt


def is_worth_it(transformer: Any, tokens: int) -> bool:
    """Say whether this way takes fewer products than `two_way`.

    Args:
        transformer: a ``TwoWayTransformer``.
        tokens: T, learned and prompt tokens of one prompt.
    """
    attention = transformer.final_attn_token_to_image
    return bool(tokens * attention.num_heads < attention.internal_dim)


def transform(
    transformer: Any, image: ImageSide, prompt_tokens: Tensor, pe: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer from its projected layer 0.

    Arguments and results are those of its reference, `two_way.transform`.
    """
    first = transformer.layers[0]
    queries = read_prompt(first, prompt_tokens, prompt_tokens)
    to_image = first.cross_attn_token_to_image
    asked = to_image.q_proj(queries + prompt_tokens)
    queries = _digest(first, queries, attend(to_image, asked, image.keys, image.values))
    scores = _score_queries(first.cross_attn_image_to_token, image.queries, queries + prompt_tokens)
    tokens = _write(first, scores, queries, image.tokens)
    for layer in transformer.layers[1:]:
        placed = tokens + pe
        queries = read_prompt(layer, queries, prompt_tokens)
        asked = queries + prompt_tokens
        read = _read(layer.cross_attn_token_to_image, asked, placed, tokens)
        queries = _digest(layer, queries, read)
        scores = _score_image(layer.cross_attn_image_to_token, placed, queries + prompt_tokens)
        tokens = _write(layer, scores, queries, tokens)
    final = transformer.final_attn_token_to_image
    read = _read(final, queries + prompt_tokens, tokens + pe, tokens)
    return transformer.norm_final_attn(queries + read), tokens


def _digest(layer: Any, queries: Tensor, read: Tensor) -> Tensor:
    """Take in what prompt tokens (N, T, C) read of the image."""
    queries = layer.norm2(queries + read)
    digested: Tensor = layer.norm3(queries + layer.mlp(queries))
    return digested


def _read(attention: Any, asked: Tensor, placed: Tensor, tokens: Tensor) -> Tensor:
    """Let prompt tokens (N, T, C) read the image (N, L, C): its keys, of a bias that says nothing.

    A bias of keys adds the same to all scores of a query, and those of values sum to themselves.
    """
    queries = _heads(attention, attention.q_proj(asked)) / _scale(attention)
    into_image = queries @ _by_head(attention, attention.k_proj.weight)  # (N, H, T, C)
    weights = torch.softmax(into_image.flatten(1, 2) @ placed.transpose(1, 2), -1)  # (N, H * T, L)
    found = _apart(attention, weights @ tokens, 1)  # (N, H, T, C)
    values = found @ _by_head(attention, attention.v_proj.weight).transpose(1, 2)
    read: Tensor = attention.out_proj(values.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return read


def _score_queries(attention: Any, queries: Tensor, asked: Tensor) -> Tensor:
    """Score prompt tokens (N, T, C) for the image's queries (1 or N, L, C/2): (N, H, T, L)."""
    keys = _heads(attention, attention.k_proj(asked)) / _scale(attention)
    by_head = _heads(attention, queries).transpose(2, 3)  # (1 or N, H, C/2/H, L)
    if len(queries) == len(keys):
        return keys @ by_head
    count, heads, tokens, _ = keys.shape  # one image for all: their tokens are rows of one product
    rows = keys.transpose(0, 1).flatten(1, 2) @ by_head[0]  # (H, N * T, L)
    return rows.view(heads, count, tokens, -1).transpose(0, 1)


def _score_image(attention: Any, placed: Tensor, asked: Tensor) -> Tensor:
    """Score prompt tokens (N, T, C) for the image (N, L, C) before its queries: (N, H, T, L)."""
    keys = _heads(attention, attention.k_proj(asked)) / _scale(attention)
    into_image = keys @ _by_head(attention, attention.q_proj.weight)  # (N, H, T, C)
    bias = keys @ attention.q_proj.bias.view(attention.num_heads, -1, 1)  # (N, H, T, 1)
    scores = into_image.flatten(1, 2) @ placed.transpose(1, 2)
    return _apart(attention, scores, 1).add_(bias)


def _write(layer: Any, scores: Tensor, queries: Tensor, tokens: Tensor) -> Tensor:
    """Let image tokens (1 or N, L, C) read prompt tokens (N, T, C) by their scores (N, H, T, L)."""
    attention = layer.cross_attn_image_to_token
    values = _heads(attention, attention.v_proj(queries))  # (N, H, T, C/2/H)
    outward = attention.out_proj.weight.view(-1, attention.num_heads, values.shape[-1])
    # The weights of a head sum to one: its share of the bias may be in every row.
    rows = values @ outward.permute(1, 2, 0) + attention.out_proj.bias / attention.num_heads
    weights = torch.softmax(scores, 2).flatten(1, 2)  # (N, H * T, L)
    written = torch.baddbmm(
        tokens.expand(len(rows), -1, -1), weights.transpose(1, 2), rows.flatten(1, 2)
    )
    normed: Tensor = layer.norm4(written)
    return normed


def _heads(attention: Any, x: Tensor) -> Tensor:
    """Split (N, T, C/2) into heads: (N, H, T, C/2/H)."""
    return _apart(attention, x, 2).transpose(1, 2)


def _apart(attention: Any, x: Tensor, axis: int) -> Tensor:
    """Make two axes of one, the first of them the heads."""
    apart: Tensor = x.unflatten(axis, (attention.num_heads, -1))  # type: ignore[no-untyped-call]
    return apart


def _by_head(attention: Any, weight: Tensor) -> Tensor:
    """Split the weight (C/2, C) of a projection into heads: (H, C/2/H, C)."""
    return weight.view(attention.num_heads, -1, weight.shape[-1])


def _scale(attention: Any) -> float:
    return math.sqrt(attention.internal_dim // attention.num_heads)

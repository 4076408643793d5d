"""Memory attention with fewer products: weights times memories, then one projection of the sum.

Upstream projects every memory token to a value of C channels before it weighs them. Weights of a
softmax sum to one, so weighing the tokens themselves, of D channels, and projecting what comes
out is the same: D is a quarter of C in the public checkpoints, and most of the time goes into
weighing. Object by object and in bands of queries, so that what a core works on stays near it. On
other devices the fused kernels of upstream's own module are faster.
Source: sam2 ``modeling/memory_attention.py`` and ``modeling/sam/transformer.py: RoPEAttention``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Of weights at once: many queries for each pass over the keys, but no more than the allocator of
# glibc keeps at hand, which is 32 MiB.
BAND_BYTES = 24 * 2**20
MUCH = 2**20  # numbers of a matrix; less at 256 pixels a side, more at 1,024
ONE_DNN: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def attend(attention: Any, tokens: Tensor, memory: Tensor, places: Tensor, **where: Any) -> Tensor:
    """Run ``MemoryAttention.forward``; what concerns the frame alone is computed once.

    Args:
        attention: a ``MemoryAttention``.
        tokens: (1, h * w, C), the frame.
        memory: (N, L, D), what each object remembers, the pointers last.
        places: (1 or N, L, D), where and how old each of that is.
        where: ``frame_places`` (1, h * w, C), and ``pointers``, how many tokens those are.

    Returns:
        (N, h * w, C).
    """
    frame_places, pointers = where["frame_places"], where["pointers"]
    if attention.pos_enc_at_input:
        tokens = tokens + 0.1 * frame_places
    plain = tokens.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    for layer in attention.layers:
        tokens = layer._forward_sa(tokens, frame_places).expand(len(memory), -1, -1)
        if plain and is_known(layer):
            tokens = tokens + _weigh(layer, tokens, memory, places, pointers)
        else:
            tokens = layer._forward_ca(tokens, memory, frame_places, places, pointers)
        hidden = layer.activation(layer.linear1(layer.norm3(tokens)))
        tokens = tokens + layer.linear2(hidden)
    normed: Tensor = attention.norm(tokens)
    return normed


def is_known(layer: Any) -> bool:
    """Say whether a layer is one whose cross-attention is restated here."""
    cross = layer.cross_attn_image
    return bool(
        type(cross).__name__ == "RoPEAttention"
        and cross.num_heads == 1
        and layer.pos_enc_at_cross_attn_keys
        and not layer.pos_enc_at_cross_attn_queries
    )


def _weigh(layer: Any, tokens: Tensor, memory: Tensor, places: Tensor, pointers: int) -> Tensor:
    """Run the cross-attention: (N, h * w, C)."""
    cross = layer.cross_attn_image
    turns = _turns(cross, tokens.shape[1], tokens.device)
    queries = cross.q_proj(layer.norm2(tokens)) / math.sqrt(cross.internal_dim)
    _turn(queries, turns)
    placed = cross.k_proj(places)  # (1 or N, L, C): what keys are of places alone, with the bias
    found = torch.empty(*queries.shape[:2], memory.shape[-1], dtype=queries.dtype)
    for one, (asked, told) in enumerate(zip(queries, memory, strict=True)):
        keys = (told @ cross.k_proj.weight.T).add_(placed[one if len(placed) > 1 else 0])
        _turn(keys[: len(keys) - pointers], turns)
        _read(asked, keys, told, found[one])
    result: Tensor = cross.out_proj(cross.v_proj(found))
    return result


def _read(queries: Tensor, keys: Tensor, memory: Tensor, found: Tensor) -> None:
    """Weigh what one object remembers (L, D) for each query (h * w, C), into (h * w, D)."""
    band = max(1, BAND_BYTES // (len(keys) * keys.element_size()))
    told = memory.to(queries.dtype).T.contiguous()  # (D, L)
    for start in range(0, len(queries), band):
        part = slice(start, start + band)
        weights = _multiply(queries[part], keys)
        torch.softmax(weights, -1, out=weights)
        found[part] = _multiply(weights, told)


def _multiply(rows: Tensor, others: Tensor) -> Tensor:
    """Multiply each of rows (n, K) with each of others (L, K): (n, L).

    By oneDNN's product, which no public function of torch reaches, where there is much to multiply:
    MKL's, which all others take, leaves the widest instructions of some processors alone and a
    third of the speed with them. Where there is little, MKL's are the sums of the official
    predictor.
    """
    if ONE_DNN is None or others.numel() < MUCH:
        return rows @ others.T
    products: Tensor = ONE_DNN(rows, others, None, "none", [], "")
    return products


def _turns(cross: Any, count: int, device: torch.device) -> Tensor:
    """By how much each place turns its token: complex, (h * w, C / 2).

    Upstream puts them on the first GPU of a machine that has one, wherever the weights are.
    """
    if cross.freqs_cis.shape[0] != count:
        side = math.isqrt(count)
        cross.freqs_cis = cross.compute_cis(end_x=side, end_y=side)
    turns: Tensor = cross.freqs_cis.to(device)
    cross.freqs_cis = turns
    return turns


def _turn(tokens: Tensor, turns: Tensor) -> None:
    """Turn tokens (..., k * h * w, C) by their places, which repeat k times, in their place."""
    pairs = tokens.view(-1, *turns.shape, 2)
    torch.view_as_complex(pairs).mul_(turns)

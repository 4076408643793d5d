"""The mask decoder's forward pass, restated so that prompts of one image share its first steps.

A layer of the two-way transformer projects the image to keys, values and queries before prompt
tokens meet it. In layer 0, without a mask prompt, that is the same for every prompt of an image:
`project_image` once, `transform` and `upscale` for each chunk of prompts. The arithmetic of the
upstream modules, bit for bit, with fewer passes over memory. (Given a single prompt, upstream's
convolutions miss that their input is channels last and round the last bit differently.)
Source: sam2 ``modeling/sam/transformer.py`` and ``modeling/sam/mask_decoder.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSide:
    """What one layer computes from the image alone; b is 1 when shared by all prompts.

    Attributes:
        tokens: (b, h/4 * w/4, C), image features, the dense prompt included.
        keys: (b, h/4 * w/4, C/2), what prompt tokens attend to.
        values: (b, h/4 * w/4, C/2), what they read.
        queries: (b, h/4 * w/4, C/2), what the image asks the prompt tokens.
    """

    tokens: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        return sum(t.nbytes for t in (self.tokens, self.keys, self.values, self.queries))

    @staticmethod
    def cat(sides: Sequence[ImageSide]) -> ImageSide:
        """Join image sides along the batch."""
        return ImageSide(
            tokens=torch.cat([side.tokens for side in sides]),
            keys=torch.cat([side.keys for side in sides]),
            values=torch.cat([side.values for side in sides]),
            queries=torch.cat([side.queries for side in sides]),
        )


def is_known(decoder: Any) -> bool:
    """Say whether a mask decoder is the one restated here."""
    transformer = decoder.transformer
    return bool(
        type(decoder).__name__ == "MaskDecoder"
        and type(transformer).__name__ == "TwoWayTransformer"
        and all(type(layer).__name__ == "TwoWayAttentionBlock" for layer in transformer.layers)
        and decoder.use_high_res_features
    )


def project_image(layer: Any, tokens: Tensor, pe: Tensor) -> ImageSide:
    """Project image tokens once, for all prompts of a picture.

    Args:
        layer: a ``TwoWayAttentionBlock``.
        tokens: (b, h/4 * w/4, C).
        pe: (1, h/4 * w/4, C), positions of the tokens.
    """
    placed = tokens + pe
    return ImageSide(
        tokens=tokens,
        keys=layer.cross_attn_token_to_image.k_proj(placed),
        values=layer.cross_attn_token_to_image.v_proj(tokens),
        queries=layer.cross_attn_image_to_token.q_proj(placed),
    )


def transform(
    transformer: Any, image: ImageSide, prompt_tokens: Tensor, pe: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer from its projected layer 0.

    Args:
        transformer: a ``TwoWayTransformer``.
        image: layer 0 of the image, as `project_image` makes it.
        prompt_tokens: (N, T, C), learned and prompt tokens.
        pe: (1, h/4 * w/4, C), positions of the image tokens.

    Returns:
        Prompt tokens (N, T, C) and image tokens (N, h/4 * w/4, C) after attention.
    """
    queries, tokens = _run_layer(transformer.layers[0], image, prompt_tokens, prompt_tokens)
    for layer in transformer.layers[1:]:
        image = project_image(layer, tokens, pe)
        queries, tokens = _run_layer(layer, image, queries, prompt_tokens)
    attended = transformer.final_attn_token_to_image(
        q=queries + prompt_tokens, k=tokens + pe, v=tokens
    )
    return transformer.norm_final_attn(queries + attended), tokens


def upscale(decoder: Any, features: Tensor, high_res_feats: Sequence[Tensor]) -> Tensor:
    """Upscale image features to the grid of low-resolution masks, adding finer ones on the way.

    Args:
        decoder: a ``MaskDecoder``.
        features: (N, C, h/4, w/4), after attention.
        high_res_feats: (1 or N, C/8, h, w) and (1 or N, C/4, h/2, w/2).

    Returns:
        (N, C/8, h, w).
    """
    deconv1, norm, activate1, deconv2, activate2 = decoder.output_upscaling
    finest, finer = high_res_feats
    features = activate1(layer_norm_2d(norm, deconv1(features).add_(finer)))
    upscaled: Tensor = activate2(deconv2(features).add_(finest))
    return upscaled


def layer_norm_2d(norm: Any, x: Tensor) -> Tensor:
    """Run ``LayerNorm2d.forward``, centring once and in place.

    Args:
        norm: a ``LayerNorm2d``.
        x: (N, C, h, w); not changed.
    """
    x = x - x.mean(1, keepdim=True)
    variance = x.pow(2).mean(1, keepdim=True)
    x = x.div_(torch.sqrt(variance + norm.eps))
    return x.mul_(norm.weight[:, None, None]).add_(norm.bias[:, None, None])


def _run_layer(
    layer: Any, image: ImageSide, queries: Tensor, prompt_pe: Tensor
) -> tuple[Tensor, Tensor]:
    """Run ``TwoWayAttentionBlock.forward`` from a projected image: new queries and tokens."""
    queries = read_prompt(layer, queries, prompt_pe)
    to_image = layer.cross_attn_token_to_image
    read = attend(to_image, to_image.q_proj(queries + prompt_pe), image.keys, image.values)
    queries = layer.norm2(queries + read)
    queries = layer.norm3(queries + layer.mlp(queries))
    to_token = layer.cross_attn_image_to_token
    keys, values = to_token.k_proj(queries + prompt_pe), to_token.v_proj(queries)
    return queries, layer.norm4(attend(to_token, image.queries, keys, values).add_(image.tokens))


def read_prompt(layer: Any, queries: Tensor, prompt_pe: Tensor) -> Tensor:
    """Let prompt tokens read each other: how a layer begins.

    Args:
        layer: a ``TwoWayAttentionBlock``.
        queries: (N, T, C), tokens so far.
        prompt_pe: (N, T, C), tokens as they were at first.
    """
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        placed = queries + prompt_pe
        queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
    normed: Tensor = layer.norm1(queries)
    return normed


def attend(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run ``Attention.forward`` on projected inputs; a batch of 1 is shared by all.

    Args:
        attention: an ``Attention``.
        q: (N or 1, Q, C').
        k: (N or 1, K, C').
        v: (N or 1, K, C').

    Returns:
        (N, Q, C), projected back.
    """
    n = max(len(q), len(k))
    queries, keys, values = (
        x.view(*x.shape[:2], attention.num_heads, -1).transpose(1, 2).expand(n, -1, -1, -1)
        for x in (q, k, v)
    )
    read = F.scaled_dot_product_attention(queries, keys, values)
    projected: Tensor = attention.out_proj(read.transpose(1, 2).flatten(2))
    return projected

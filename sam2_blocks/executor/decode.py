"""Embeddings and prompts to low-resolution logits.

The first transformer layer projects the image to keys, values and queries before any prompt has
touched it. Without a mask prompt these are the same for all prompts of an image, so we compute
them once (`ImageSide`) and keep them beside the embedding. `decode_plain` is the network's own
forward pass: the reference, and the way for anything `supports_shared` does not know.
Source: sam2 ``modeling/sam/mask_decoder.py`` and ``modeling/sam/transformer.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.cache import ByteCache
from sam2_blocks.executor.model import LoadedModel
from sam2_blocks.executor.prompts import PromptRow, rows_to_tensors

# Working memory of the decoder for one prompt, in units of its image tokens, as measured.
LIVE_TOKENS = 8
# On a CPU a chunk should stay in cache: 2 prompts of the public checkpoints on two cores.
CHUNK_BYTES_PER_THREAD = 32 * 2**20
CHUNK_BYTES = {"cuda": 4 * 2**30, "mps": 2**30}
IMAGE_SIDES_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30, "mps": 256 * 2**20}


@dataclass(frozen=True, eq=False)
class ImageSide:
    """What layer 0 computes from the image alone; b is 1 when shared by all prompts.

    Attributes:
        tokens: (b, h/4 * w/4, C), image features plus the dense prompt.
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


class Decoder:
    """Decodes prompts of one model; safe to call from several threads."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._network: Any = model.network
        self._shared = supports_shared(model)
        budget = IMAGE_SIDES_BYTES.get(model.device.type, IMAGE_SIDES_BYTES["cpu"])
        self._image_sides: ByteCache[ImageSide] = ByteCache(budget)
        with torch.inference_mode():
            self._image_pe: Tensor = self._network.sam_prompt_encoder.get_dense_pe()

    @property
    def chunk_size(self) -> int:
        """How many prompts to decode at once."""
        height, width = self._model.low_res_hw
        tokens_bytes = height * width // 16 * self._network.hidden_dim * 4
        budget = CHUNK_BYTES.get(
            self._model.device.type, CHUNK_BYTES_PER_THREAD * torch.get_num_threads()
        )
        return int(max(1, budget // (LIVE_TOKENS * tokens_bytes)))

    def decode(self, rows: Sequence[PromptRow], *, multimask_output: bool) -> tuple[Tensor, Tensor]:
        """Decode rows of one group.

        Args:
            rows: prompts of equal shape, of any images.
            multimask_output: three candidates for each prompt instead of one.

        Returns:
            Logits float32 (N, M, h, w) and predicted IoU float32 (N, M).
        """
        points, masks = rows_to_tensors(rows, self._model.device)
        with self._model.computing():
            sparse, dense = self._network.sam_prompt_encoder(points=points, boxes=None, masks=masks)
            if self._shared:
                logits, iou = self._decode_shared(rows, sparse, dense, has_masks=masks is not None)
                logits, iou = self._choose_tokens(logits, iou, multimask_output=multimask_output)
            else:
                logits, iou = self.decode_plain(
                    rows, sparse, dense, multimask_output=multimask_output
                )
        return logits.float(), iou.float()

    def decode_plain(
        self, rows: Sequence[PromptRow], sparse: Tensor, dense: Tensor, *, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Run the network's own mask decoder on rows and their prompt embeddings."""
        image_embed, *high_res_feats = _gather_levels(rows)
        logits, iou, _, _ = self._network.sam_mask_decoder(
            image_embeddings=image_embed.expand(len(rows), -1, -1, -1),
            image_pe=self._image_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            repeat_image=False,
            high_res_features=high_res_feats or None,
        )
        return logits, iou

    def _decode_shared(
        self, rows: Sequence[PromptRow], sparse: Tensor, dense: Tensor, *, has_masks: bool
    ) -> tuple[Tensor, Tensor]:
        """Decode all four mask tokens: logits (N, 4, h, w) and predicted IoU (N, 4)."""
        image_embed, *high_res_feats = _gather_levels(rows)
        if has_masks:
            image = self._project_image(image_embed + dense)
        else:
            image = self._gather_image_sides(rows, dense[:1])
        hidden, tokens = self._transform(image, self._output_tokens(sparse))
        return self._predict(hidden, tokens, high_res_feats, image_embed.shape[-2:])

    def _project_image(self, features: Tensor) -> ImageSide:
        """Project image features (b, C, h/4, w/4), dense prompt included, for layer 0."""
        layer = self._network.sam_mask_decoder.transformer.layers[0]
        tokens = features.flatten(2).permute(0, 2, 1)
        with_pe = tokens + self._pe_tokens()
        return ImageSide(
            tokens=tokens,
            keys=layer.cross_attn_token_to_image.k_proj(with_pe),
            values=layer.cross_attn_token_to_image.v_proj(tokens),
            queries=layer.cross_attn_image_to_token.q_proj(with_pe),
        )

    def _gather_image_sides(self, rows: Sequence[PromptRow], dense: Tensor) -> ImageSide:
        embeddings = {row.embedding.key: row.embedding for row in rows}

        def project(keys: Sequence[str]) -> list[ImageSide]:
            return [self._project_image(embeddings[key].image_embed + dense) for key in keys]

        sides = dict(
            zip(embeddings, self._image_sides.get_many(list(embeddings), project), strict=True)
        )
        if len(sides) == 1:
            return next(iter(sides.values()))
        chosen = [sides[row.embedding.key] for row in rows]
        return ImageSide(
            tokens=torch.cat([side.tokens for side in chosen]),
            keys=torch.cat([side.keys for side in chosen]),
            values=torch.cat([side.values for side in chosen]),
            queries=torch.cat([side.queries for side in chosen]),
        )

    def _output_tokens(self, sparse: Tensor) -> Tensor:
        """Put the learned tokens before the prompt's: object score, IoU, four masks."""
        decoder = self._network.sam_mask_decoder
        learned = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            learned.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(learned).expand(len(sparse), -1, -1), sparse], dim=1)

    def _transform(self, image: ImageSide, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer; its layer 0 starts from the projected image."""
        transformer = self._network.sam_mask_decoder.transformer
        pe = self._pe_tokens()
        queries, keys = _first_layer(transformer.layers[0], image, tokens)
        for layer in transformer.layers[1:]:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=pe)
        attended = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + pe, v=keys)
        return transformer.norm_final_attn(queries + attended), keys

    def _predict(
        self, hidden: Tensor, tokens: Tensor, high_res_feats: Sequence[Tensor], hw: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Upscale the image tokens and read masks and their quality from the hidden tokens."""
        decoder = self._network.sam_mask_decoder
        features = tokens.transpose(1, 2).view(len(tokens), -1, *hw)  # (N, C, h/4, w/4)
        deconv1, norm, activate1, deconv2, activate2 = decoder.output_upscaling
        finest, finer = high_res_feats
        features = activate1(norm(deconv1(features) + finer))
        features = activate2(deconv2(features) + finest)  # (N, C/8, h, w)
        first = int(decoder.pred_obj_scores)
        mask_tokens = hidden[:, first + 1 : first + 1 + decoder.num_mask_tokens]
        kernels = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1
        )
        logits = kernels @ features.flatten(2)  # (N, 4, h * w)
        logits = logits.view(*logits.shape[:2], *features.shape[-2:])
        return logits, decoder.iou_prediction_head(hidden[:, first])

    def _choose_tokens(
        self, logits: Tensor, iou: Tensor, *, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Select the mask tokens to answer with, as the official decoder's ``forward`` does."""
        if multimask_output:
            return logits[:, 1:], iou[:, 1:]
        decoder = self._network.sam_mask_decoder
        if decoder.dynamic_multimask_via_stability:
            stable: tuple[Tensor, Tensor] = decoder._dynamic_multimask_via_stability(logits, iou)
            return stable
        return logits[:, :1], iou[:, :1]

    def _pe_tokens(self) -> Tensor:
        return self._image_pe.flatten(2).permute(0, 2, 1)  # (1, h/4 * w/4, C)


def supports_shared(model: LoadedModel) -> bool:
    """Say whether the mask decoder is the one we know how to start from a projected image."""
    decoder = model.network.sam_mask_decoder
    return bool(
        type(decoder).__name__ == "MaskDecoder"
        and type(decoder.transformer).__name__ == "TwoWayTransformer"
        and decoder.transformer.layers[0].skip_first_layer_pe
        and decoder.use_high_res_features
    )


def _first_layer(layer: Any, image: ImageSide, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run ``TwoWayAttentionBlock.forward`` from a projected image: new queries and keys."""
    queries = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
    to_image = layer.cross_attn_token_to_image
    attended = _attend(to_image, to_image.q_proj(queries + tokens), image.keys, image.values)
    queries = layer.norm2(queries + attended)
    queries = layer.norm3(queries + layer.mlp(queries))
    to_token = layer.cross_attn_image_to_token
    attended = _attend(
        to_token, image.queries, to_token.k_proj(queries + tokens), to_token.v_proj(queries)
    )
    return queries, layer.norm4(image.tokens + attended)


def _attend(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run ``Attention.forward`` on projected inputs; a batch of 1 is shared by all."""
    n = max(len(q), len(k))
    queries, keys, values = (
        x.view(*x.shape[:2], attention.num_heads, -1).transpose(1, 2).expand(n, -1, -1, -1)
        for x in (q, k, v)
    )
    out = F.scaled_dot_product_attention(queries, keys, values)
    attended: Tensor = attention.out_proj(out.transpose(1, 2).flatten(2))
    return attended


def _gather_levels(rows: Sequence[PromptRow]) -> list[Tensor]:
    """Return image embedding and high-resolution features, batched only if images differ."""
    levels = [(row.embedding.image_embed, *row.embedding.high_res_feats) for row in rows]
    if len({row.embedding.key for row in rows}) == 1:
        return list(levels[0])
    return [torch.cat(level) for level in zip(*levels, strict=True)]

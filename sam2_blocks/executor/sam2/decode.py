"""Embeddings and prompts to low-resolution logits.

What layer 0 computes from the image alone is kept beside the embedding and shared by its prompts
(see `two_way`). `decode_plain` is the network's own forward pass: the reference, and the way for
decoders that `two_way` does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.cache.lru import ByteCache, CacheStats
from sam2_blocks.executor.device.chunks import even_sizes, fill_bucket
from sam2_blocks.executor.sam2 import folded
from sam2_blocks.executor.sam2.backend import DECODED_AT_ONCE, WORTH_FILLING, OpenVinoDecoder
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.rows import PromptRow, rows_to_tensors
from sam2_blocks.executor.sam2.two_way import ImageSide, is_known, project_image, transform, upscale

# Working memory of the decoder for one prompt, in units of its image tokens, as measured.
LIVE_TOKENS = 8
# On a CPU a chunk should stay in the cache of a core: one prompt of the public checkpoints. On CUDA
# 32 of them keep the device busy, and more would only take memory.
CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30, "mps": 2**30}
IMAGE_SIDES_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30, "mps": 256 * 2**20}

ALWAYS_SEEN = 10.0  # score of an object where a model has none; source: sam2 `MaskDecoder`
# Products of so many rows, and of any multiple, round each row alike.
ROWS_AT_ONCE = 8


def run_plain(layers: Any, rows: Tensor) -> Tensor:
    """Run layers on rows (N, C) as they are."""
    result: Tensor = layers(rows)
    return result


def run_padded(layers: Any, rows: Tensor) -> Tensor:
    """Run layers on rows (N, C) so that each comes out the same however many are beside it.

    Products of other numbers of rows are rounded in other ways, so N is rounded up to a multiple
    of `ROWS_AT_ONCE` with rows of zeros.
    """
    padded = F.pad(rows, (0, 0, 0, -len(rows) % ROWS_AT_ONCE))
    return run_plain(layers, padded)[: len(rows)]


@dataclass(frozen=True, eq=False)
class ObjectTokens:
    """Everything the mask decoder says of N objects of one picture; tracking needs all of it.

    Attributes:
        logits: float32, (N, M, h, w).
        iou: float32, (N, M), predicted.
        tokens: (N, M, C), or (N, 1, C) where one stands for all candidates.
        object_score: float32, (N, 1), logit of the object being visible.
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor


class Decoder:
    """Decodes prompts of one model; safe to call from several threads.

    Args:
        model: the network.
        cache_bytes: bound of what is kept of each picture beside its embedding, which is never more
            than `IMAGE_SIDES_BYTES`. With 0 it is kept only until `forget` is called.
    """

    def __init__(self, model: LoadedModel, *, cache_bytes: int | None = None) -> None:
        self._model = model
        self._network: Any = model.network
        self._shared = is_known(model.network.sam_mask_decoder)
        # Tracking decodes many objects at once, each as if it were alone: not in this way.
        self._may_fold = model.device.type == "cpu" and model.dtype == torch.float32
        self._forward = model.accelerate(self._decode_tokens, "decoder")
        # In float32 torch is as fast, with one prompt a core, in far less memory.
        if self._shared and model.backend == "openvino" and model.dtype == torch.bfloat16:
            self._forward = OpenVinoDecoder(model, self._decode_tokens)
        self._forward_objects = model.accelerate(self._decode_objects, "decoder")
        budget = IMAGE_SIDES_BYTES.get(model.device.type, IMAGE_SIDES_BYTES["cpu"])
        self._keeps = cache_bytes is None or cache_bytes > 0
        if cache_bytes:
            budget = min(budget, cache_bytes)
        self._image_sides: ByteCache[ImageSide] = ByteCache(budget)
        with torch.inference_mode():
            self._image_pe: Tensor = self._network.sam_prompt_encoder.get_dense_pe()
            self._pe_tokens = self._image_pe.flatten(2).permute(0, 2, 1)  # (1, h/4 * w/4, C)

    @property
    def chunk_size(self) -> int:
        """How many prompts to decode at once."""
        height, width = self._model.low_res_hw
        tokens_bytes = height * width // 16 * self._network.hidden_dim * 4
        budget = CHUNK_BYTES.get(self._model.device.type, CHUNK_BYTES["cpu"])
        return int(max(1, budget // (LIVE_TOKENS * tokens_bytes)))

    def chunk_sizes(self, count: int, cores: int) -> list[int]:
        """Divide prompts into calls of the decoder, which several cores take.

        In OpenVINO full chunks are faster, so all cores take full ones as often as they can.

        Args:
            count: prompts.
            cores: that take calls.

        Returns:
            How many prompts each call decodes; they add up to ``count``.
        """
        if not isinstance(self._forward, OpenVinoDecoder):
            return even_sizes(count, self.chunk_size, cores)
        full = count // (DECODED_AT_ONCE * cores) * cores
        rest = count - full * DECODED_AT_ONCE
        each = -(-rest // cores)
        most = each if each >= WORTH_FILLING else self.chunk_size
        return [DECODED_AT_ONCE] * full + even_sizes(rest, most, cores)

    def cache_stats(self) -> CacheStats:
        """Return what is kept of pictures beside their embeddings, and how often it served."""
        return self._image_sides.stats()

    def forget_unused(self) -> None:
        """Drop what is kept of pictures that nobody asked about since the last call."""
        self._image_sides.forget_unused()

    def forget(self) -> None:
        """Drop what was derived from pictures, unless there is a cache for it.

        Call it when the prompts of a request are answered.
        """
        if not self._keeps:
            self._image_sides.clear()

    def decode(self, rows: Sequence[PromptRow], *, multimask_output: bool) -> tuple[Tensor, Tensor]:
        """Decode rows of one group.

        Args:
            rows: prompts of equal shape, of any images.
            multimask_output: three candidates for each prompt instead of one.

        Returns:
            Logits float32 (N, M, h, w) and predicted IoU float32 (N, M).
        """
        count = len(rows)
        if self._shared and self._model.has_fixed_shapes("decoder"):
            rows = fill_bucket(rows, self.chunk_size)
        points, masks = rows_to_tensors(rows, self._model.device)
        with self._model.computing(reduced=False):  # coordinates need all their digits
            sparse, dense = self._network.sam_prompt_encoder(points=points, boxes=None, masks=masks)
        with self._model.computing():
            if self._shared:
                logits, iou = self._decode_shared(rows, sparse, dense, has_masks=masks is not None)
                logits, iou = self._choose_tokens(logits, iou, multimask_output=multimask_output)
            else:
                logits, iou = self.decode_plain(
                    rows, sparse, dense, multimask_output=multimask_output
                )
        return logits[:count].float(), iou[:count].float()

    def decode_objects(
        self,
        image_embed: Tensor,
        high_res_feats: Sequence[Tensor],
        *,
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
        multimask_output: bool,
    ) -> ObjectTokens:
        """Decode N objects of one picture, each from image features of its own or all from one.

        Args:
            image_embed: (N or 1, C, h/4, w/4).
            high_res_feats: (1, C/8, h, w) and (1, C/4, h/2, w/2).
            points: coordinates (N, T, 2) in the encoder's square and labels (N, T); None asks for
                the object that the features are about.
            masks: logits (N, 1, h, w), if any.
            multimask_output: three candidates for each object instead of one.
        """
        count = max(len(x) for x in (image_embed, masks, points and points[0]) if x is not None)
        if points is None:
            nowhere = torch.zeros(count, 1, 2, device=image_embed.device)
            points = nowhere, torch.full((count, 1), -1, dtype=torch.int32, device=nowhere.device)
        with self._model.computing(reduced=False):  # coordinates need all their digits
            sparse, dense = self._network.sam_prompt_encoder(points=points, boxes=None, masks=masks)
        with self._model.computing():
            if not self._shared:
                return self._decode_objects_plain(
                    image_embed, high_res_feats, sparse, dense, multimask_output=multimask_output
                )
            image = self._project_image(image_embed + (dense[:1] if masks is None else dense))
            side = (image.tokens, image.keys, image.values, image.queries)
            logits, iou, tokens, score = self._forward_objects(
                self._output_tokens(sparse), *side, *high_res_feats
            )
            logits, iou = self._choose_tokens(logits, iou, multimask_output=multimask_output)
            own = multimask_output and self._network.use_multimask_token_for_obj_ptr
            tokens = tokens[:, 1:] if own else tokens[:, :1]
        return ObjectTokens(logits.float(), iou.float(), tokens, score.float())

    def _decode_objects_plain(
        self,
        image_embed: Tensor,
        high_res_feats: Sequence[Tensor],
        sparse: Tensor,
        dense: Tensor,
        *,
        multimask_output: bool,
    ) -> ObjectTokens:
        """Run the network's own mask decoder: the reference of `decode_objects`."""
        logits, iou, tokens, score = self._network.sam_mask_decoder(
            image_embeddings=image_embed.expand(len(sparse), -1, -1, -1),
            image_pe=self._image_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            repeat_image=False,
            high_res_features=list(high_res_feats) or None,
        )
        return ObjectTokens(logits.float(), iou.float(), tokens, score.float())

    def decode_plain(
        self, rows: Sequence[PromptRow], sparse: Tensor, dense: Tensor, *, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Run the network's own mask decoder on rows and their prompt embeddings."""
        image_embed, *high_res_feats = _gather_levels(rows)
        decoded = self._decode_objects_plain(
            image_embed, high_res_feats, sparse, dense, multimask_output=multimask_output
        )
        return decoded.logits, decoded.iou

    def _decode_shared(
        self, rows: Sequence[PromptRow], sparse: Tensor, dense: Tensor, *, has_masks: bool
    ) -> tuple[Tensor, Tensor]:
        """Decode all four mask tokens: logits (N, 4, h, w) and predicted IoU (N, 4)."""
        image_embed, *high_res_feats = _gather_levels(rows)
        if has_masks:
            image = self._project_image(image_embed + dense)
        else:
            image = self._gather_image_sides(rows, dense[:1])
        side = (image.tokens, image.keys, image.values, image.queries)
        logits, iou = self._forward(self._output_tokens(sparse), *side, *high_res_feats)
        return logits, iou

    def _decode_tokens(self, prompt_tokens: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Decode prompt tokens (N, T, C), given the image side and high-resolution features.

        A pure function of tensors, so that it can be compiled or recorded.
        """
        hidden, tokens = self._transform(prompt_tokens, *tensors[:4], may_fold=self._may_fold)
        return self._predict(hidden, tokens, tensors[4:])

    def _decode_objects(
        self, prompt_tokens: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `_decode_tokens`, with the mask tokens (N, 4, C) and the object's score (N, 1)."""
        decoder = self._network.sam_mask_decoder
        hidden, tokens = self._transform(prompt_tokens, *tensors[:4])
        logits, iou = self._predict(hidden, tokens, tensors[4:], run=run_padded)
        first = 1 + int(decoder.pred_obj_scores)
        mask_tokens = hidden[:, first : first + decoder.num_mask_tokens]
        if not decoder.pred_obj_scores:
            return logits, iou, mask_tokens, iou.new_full((len(iou), 1), ALWAYS_SEEN)
        return logits, iou, mask_tokens, run_padded(decoder.pred_obj_score_head, hidden[:, 0])

    def _transform(
        self, prompt_tokens: Tensor, *side: Tensor, may_fold: bool = False
    ) -> tuple[Tensor, Tensor]:
        transformer = self._network.sam_mask_decoder.transformer
        folds = may_fold and folded.is_worth_it(transformer, prompt_tokens.shape[1])
        run = folded.transform if folds else transform
        return run(transformer, ImageSide(*side), prompt_tokens, self._pe_tokens)

    def _project_image(self, features: Tensor) -> ImageSide:
        """Project image features (b, C, h/4, w/4), dense prompt included, for layer 0."""
        layer = self._network.sam_mask_decoder.transformer.layers[0]
        return project_image(layer, features.flatten(2).permute(0, 2, 1), self._pe_tokens)

    def _gather_image_sides(self, rows: Sequence[PromptRow], dense: Tensor) -> ImageSide:
        embeddings = {row.embedding.key: row.embedding for row in rows}

        def project(keys: Sequence[str]) -> list[ImageSide]:
            return [self._project_image(embeddings[key].image_embed + dense) for key in keys]

        sides = dict(
            zip(embeddings, self._image_sides.get_many(list(embeddings), project), strict=True)
        )
        if len(sides) == 1:
            return next(iter(sides.values()))
        return ImageSide.cat([sides[row.embedding.key] for row in rows])

    def _output_tokens(self, sparse: Tensor) -> Tensor:
        """Put the learned tokens before the prompt's: object score, IoU, four masks."""
        decoder = self._network.sam_mask_decoder
        learned = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            learned.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(learned).expand(len(sparse), -1, -1), sparse], dim=1)

    def _predict(
        self,
        hidden: Tensor,
        tokens: Tensor,
        high_res_feats: Sequence[Tensor],
        *,
        run: Callable[[Any, Tensor], Tensor] = run_plain,
    ) -> tuple[Tensor, Tensor]:
        """Read the masks and their quality from the transformed tokens."""
        decoder = self._network.sam_mask_decoder
        # Channels last, with the strides convolutions recognise as such even for one prompt.
        features = tokens.view(len(tokens), *self._image_pe.shape[-2:], -1).permute(0, 3, 1, 2)
        features = upscale(decoder, features, high_res_feats)  # (N, C/8, h, w)
        first = int(decoder.pred_obj_scores)
        mask_tokens = hidden[:, first + 1 : first + 1 + decoder.num_mask_tokens]
        kernels = torch.stack(
            [
                run(mlp, mask_tokens[:, i])
                for i, mlp in enumerate(decoder.output_hypernetworks_mlps)
            ],
            1,
        )
        logits = kernels @ features.flatten(2)  # (N, 4, h * w)
        logits = logits.view(*logits.shape[:2], *features.shape[-2:])
        return logits, run(decoder.iou_prediction_head, hidden[:, first])

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


def _gather_levels(rows: Sequence[PromptRow]) -> list[Tensor]:
    """Return image embedding and high-resolution features, batched only if images differ."""
    levels = [(row.embedding.image_embed, *row.embedding.high_res_feats) for row in rows]
    if len({row.embedding.key for row in rows}) == 1:
        return list(levels[0])
    return [torch.cat(level) for level in zip(*levels, strict=True)]

"""Tracking as it is trained: SAM 2's own modules, frame by frame, for many objects at once.

All objects of a batch are prompted on the same frame, so that one tensor holds them all. Only the
memory learns; what segments pictures is frozen and stays as it is, bit by bit.

Axis letters: N objects (of all clips), T frames, M = 4 candidate masks, h, w of low resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor

from examples.train_nano.model import MEAN, STD, UNTRAINED

# The object score's head answers nobody but the tracker; its token is seen by the mask tokens.
MEMORY = (*UNTRAINED, "sam_mask_decoder.pred_obj_score_head")
LONG = 1 << 20  # "frames of the clip" for SAM 2, whose pointers' encoding depends on short ones


def is_memory(name: str) -> bool:
    """Say whether a weight belongs to the video memory, which pictures do not use."""
    return name.startswith(MEMORY)


def memory_parameters(model: SAM2Base) -> dict[str, torch.nn.Parameter]:
    """Name what video training changes."""
    return {n: p for n, p in model.named_parameters() if is_memory(n)}


def picture_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take what pictures use from a state dict."""
    return {n: t for n, t in state.items() if not is_memory(n)}


@dataclass(frozen=True)
class Features:
    """What the frozen encoder says of frames: levels, finest first, each (..., C, h, w)."""

    levels: tuple[Tensor, ...]

    def __getitem__(self, index: Any) -> Features:
        return Features(tuple(level[index] for level in self.levels))

    def to(self, dtype: torch.dtype) -> Features:
        """Convert all levels."""
        return Features(tuple(level.to(dtype) for level in self.levels))


@torch.no_grad()
def encode(model: SAM2Base, images: Tensor) -> Features:
    """Encode images (T, 3, S, S) in 0..1, without what stands for an absent memory."""
    images = (images - MEAN.to(images)) / STD.to(images)
    return Features(tuple(model.forward_image(images)["backbone_fpn"][-3:]))


@dataclass
class Memory:
    """What a tracker remembers of N objects, in the form in which SAM 2 reads it."""

    prompted: dict[int, dict[str, Any]] = field(default_factory=dict)
    tracked: dict[int, dict[str, Any]] = field(default_factory=dict)

    def as_outputs(self) -> dict[str, dict[int, dict[str, Any]]]:
        """SAM 2's ``output_dict``."""
        return {"cond_frame_outputs": self.prompted, "non_cond_frame_outputs": self.tracked}


@dataclass(frozen=True)
class Answer:
    """One frame: logits (N, 4, h, w), iou (N, 4), object score (N, 1), mask tokens (N, 4, C)."""

    logits: Tensor
    iou: Tensor
    score: Tensor
    tokens: Tensor


class Tracker:
    """Tracks N objects with gradients.

    Args:
        model: nano.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.model = model

    def condition(self, frame: int, features: Features, memory: Memory) -> Tensor:
        """Blend one frame's features (N, C, h, w) with what is remembered; (N, C, h, w)."""
        top = features.levels[-1]
        encoding = self.model.image_encoder.neck.position_encoding(top[:1])
        conditioned: Tensor = self.model._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=not memory.prompted,
            current_vision_feats=[_as_tokens(top)],
            current_vision_pos_embeds=[_as_tokens(encoding.expand_as(top))],
            feat_sizes=[tuple(top.shape[-2:])],
            output_dict=memory.as_outputs(),
            num_frames=LONG,
        )
        return conditioned

    def decode(
        self,
        conditioned: Tensor,
        features: Features,
        prompt: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
    ) -> Answer:
        """Decode conditioned features with points (N, P, 2) and labels (N, P), or with none."""
        n = len(conditioned)
        if prompt is None:
            nowhere = torch.zeros(n, 1, 2, device=conditioned.device)
            prompt = nowhere, -torch.ones(n, 1, dtype=torch.int32, device=conditioned.device)
        with torch.autocast(conditioned.device.type, enabled=False):
            encoder = self.model.sam_prompt_encoder
            dense_prompt = None if masks is None else masks.float()
            sparse, dense = encoder(points=prompt, boxes=None, masks=dense_prompt)
            position = encoder.get_dense_pe()
        decoder = self.model.sam_mask_decoder
        logits, iou, tokens, score = decoder.predict_masks(
            image_embeddings=conditioned,
            image_pe=position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(features.levels[:-1]),
        )
        return Answer(logits.float(), iou.float(), score.float(), tokens)

    def choose(self, answer: Answer, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """Take one candidate as SAM 2 does: logits (N, 1, h, w) and mask token (N, C).

        Args:
            answer: all four candidates.
            multimask: the best of three (no points, or one), else the single one if it is stable.
        """
        if not multimask:
            decoder = self.model.sam_mask_decoder
            logits, _ = decoder._dynamic_multimask_via_stability(answer.logits, answer.iou)
            return logits, answer.tokens[:, 0]
        best = answer.iou[:, 1:].argmax(-1) + 1
        rows = torch.arange(len(best), device=best.device)
        return answer.logits[rows, best][:, None], answer.tokens[rows, best]

    def remember(
        self, features: Features, logits: Tensor, token: Tensor, present: Tensor
    ) -> dict[str, Any]:
        """Make a memory of a frame.

        Args:
            features: of the frame.
            logits: the mask, (N, 1, h, w).
            token: its mask token, (N, C).
            present: whether the object counts as seen, (N, 1) bool.
        """
        model, seen = self.model, present.float()
        logits = torch.where(present[..., None, None], logits, NO_OBJ_SCORE)
        size = (model.image_size, model.image_size)
        full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        pointer = seen * model.obj_ptr_proj(token) + (1 - seen) * model.no_obj_ptr
        return self._encode_memory(features, full, pointer, present)

    def remember_mask(self, features: Features, mask: Tensor) -> dict[str, Any]:
        """Make a memory of a given mask (N, 1, S, S) bool, as SAM 2 does of a mask prompt."""
        small = self.model.mask_downsample(mask.float())
        # SAM 2 takes the plain features here, though it adds the embedding of no memory to points.
        token = self.decode(features.levels[-1], features, masks=small).tokens[:, 0]
        present = torch.ones(len(mask), 1, dtype=torch.bool, device=mask.device)
        pointer = self.model.obj_ptr_proj(token)
        return self._encode_memory(features, mask.float() * 20 - 10, pointer, present)

    def _encode_memory(
        self, features: Features, logits: Tensor, pointer: Tensor, present: Tensor
    ) -> dict[str, Any]:
        top = features.levels[-1]
        maps, encodings = self.model._encode_new_memory(
            current_vision_feats=[_as_tokens(top)],
            feat_sizes=[tuple(top.shape[-2:])],
            pred_masks_high_res=logits,
            object_score_logits=present.float() * 2 - 1,
            is_mask_from_pts=False,
        )
        return {"maskmem_features": maps, "maskmem_pos_enc": encodings, "obj_ptr": pointer}


def _as_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).permute(2, 0, 1)  # (h * w, N, C)


@torch.no_grad()
def prepare(model: SAM2Base, features: Features) -> None:
    """Start the memory near what the frozen decoder knows, which saves it a long way.

    The last norm of the memory attention is set so that without any memory it returns the features
    as the decoder sees them on pictures, and a mask prompt is averaged to logits of -10 and 10.

    Args:
        model: with fresh memory weights.
        features: of some frames, (T, C, h, w).
    """
    top = features.levels[-1].float()
    wanted = _as_tokens(top + model.no_mem_embed[0, 0, :, None, None]).flatten(0, 1)
    encoding = _as_tokens(model.image_encoder.neck.position_encoding(top)).flatten(0, 1)
    normed = F.layer_norm(_as_tokens(top).flatten(0, 1) + 0.1 * encoding, top.shape[1:2])
    spread = (normed - normed.mean(0)).square().mean(0).clamp(min=1e-6)
    gain = ((normed - normed.mean(0)) * (wanted - wanted.mean(0))).mean(0) / spread
    norm = model.memory_attention.norm
    norm.weight.copy_(gain)
    norm.bias.copy_(wanted.mean(0) - gain * normed.mean(0))
    model.mask_downsample.weight.fill_(20 / model.mask_downsample.weight[0].numel())
    model.mask_downsample.bias.fill_(-10)
    for layer in model.memory_attention.layers:
        for linear in (layer.self_attn.out_proj, layer.linear2):
            linear.weight.mul_(0.3)

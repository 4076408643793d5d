"""What the network says of objects on one frame: prompted, tracked, corrected, or given as masks.

Source: sam2 ``modeling/sam2_base.py: _forward_sam_heads, _use_mask_as_output``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.sam2.decode import Decoder, ObjectTokens, run_padded
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.values import Embedding

NO_OBJECT = -1024.0  # logit of every pixel of an object that is not seen
MASK_LOGIT = 10.0  # of the pixels of a mask that a user gave, negative outside


@dataclass(frozen=True, eq=False)
class ObjectAnswers:
    """N objects on one frame.

    Attributes:
        logits: float32, (N, h, w).
        iou: float32, (N,), predicted.
        object_score: float32, (N, 1), logit of the object being visible.
        pointer: (N, C), what it is, for later frames.
    """

    logits: Tensor
    iou: Tensor
    object_score: Tensor
    pointer: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    def split(self) -> list[ObjectAnswers]:
        """Return the answer for each object alone, owning its storage."""
        return [
            ObjectAnswers(
                logits=self.logits[i : i + 1].clone(),
                iou=self.iou[i : i + 1].clone(),
                object_score=self.object_score[i : i + 1].clone(),
                pointer=self.pointer[i : i + 1].clone(),
            )
            for i in range(len(self))
        ]

    @staticmethod
    def cat(parts: Sequence[ObjectAnswers]) -> ObjectAnswers:
        """Join answers of one frame."""
        if len(parts) == 1:
            return parts[0]
        return ObjectAnswers(
            logits=torch.cat([part.logits for part in parts]),
            iou=torch.cat([part.iou for part in parts]),
            object_score=torch.cat([part.object_score for part in parts]),
            pointer=torch.cat([part.pointer for part in parts]),
        )


class Heads:
    """Answers for objects on frames with one model; holds no state of any video."""

    def __init__(self, model: LoadedModel, decoder: Decoder) -> None:
        self._model = model
        self._network: Any = model.network
        self._decoder = decoder

    def start(
        self, frame: Embedding, points: tuple[Tensor, Tensor] | None, masks: Tensor | None
    ) -> ObjectAnswers:
        """Answer prompts as on a picture, without any memory.

        Args:
            frame: the frame.
            points: coordinates (N, T, 2) in the encoder's square and labels (N, T), if any.
            masks: logits (N, 1, h, w), if any.
        """
        nothing = self._network.no_mem_embed.view(1, -1, 1, 1)
        with torch.inference_mode():
            features = frame.image_embed + nothing.to(frame.image_embed.dtype)
        return self._answer(frame, features, points, masks, is_start=True)

    def follow(
        self,
        frame: Embedding,
        features: Tensor,
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
    ) -> ObjectAnswers:
        """Find objects again, or correct them by prompts.

        Args:
            frame: the frame.
            features: (N, C, h/4, w/4), the frame as `Memory.read` sees it for each object.
            points: as in `start`.
            masks: as in `start`.
        """
        return self._answer(frame, features, points, masks, is_start=False)

    def take(self, frame: Embedding, masks: Tensor) -> ObjectAnswers:
        """Take masks as they are, and learn from each what the object is.

        Args:
            frame: the frame.
            masks: float32, (N, 1, S, S), 0 or 1 in the encoder's square.
        """
        with self._model.computing(reduced=False):
            prompts = self._network.mask_downsample(masks)
            logits = F.interpolate(
                masks * (2 * MASK_LOGIT) - MASK_LOGIT,
                tuple(side // 4 for side in masks.shape[-2:]),
                mode="bilinear",
                antialias=True,
            )[:, 0]
        found = self._answer(frame, frame.image_embed, None, prompts, multimask_output=False)
        seen = masks.flatten(1).any(1, keepdim=True).float()  # (N, 1)
        return ObjectAnswers(
            logits=logits,
            iou=torch.ones_like(found.iou),
            object_score=seen * (2 * MASK_LOGIT) - MASK_LOGIT,
            pointer=self._hide(found.pointer, seen),
        )

    def _answer(
        self,
        frame: Embedding,
        features: Tensor,
        points: tuple[Tensor, Tensor] | None,
        masks: Tensor | None,
        *,
        is_start: bool = False,
        multimask_output: bool | None = None,
    ) -> ObjectAnswers:
        if multimask_output is None:
            inputs = None if points is None else {"point_labels": points[1]}
            multimask_output = bool(self._network._use_multimask(is_start, inputs))
        with torch.inference_mode():
            tokens = self._decoder.decode_objects(
                features,
                frame.high_res_feats,
                points=points,
                masks=masks,
                multimask_output=multimask_output,
            )
        return self._choose(tokens)

    def _choose(self, found: ObjectTokens) -> ObjectAnswers:
        """Choose one candidate of each object, and hide what is not seen."""
        network = self._network
        with self._model.computing():
            rows = torch.arange(len(found.iou), device=found.iou.device)
            best = found.iou.argmax(1)
            token = found.tokens[rows, best if found.tokens.shape[1] > 1 else 0]  # (N, C)
            pointer = run_padded(network.obj_ptr_proj, token).float()
            logits, score = found.logits[rows, best], found.object_score
            if network.pred_obj_scores:
                seen = score > 0
                logits = torch.where(seen[..., None], logits, NO_OBJECT)
                pointer = self._hide(
                    pointer, score.sigmoid() if network.soft_no_obj_ptr else seen.float()
                )
        return ObjectAnswers(logits, found.iou[rows, best], score, pointer)

    def _hide(self, pointer: Tensor, seen: Tensor) -> Tensor:
        """Let a pointer say by how much (N, 1) its object is not seen."""
        network = self._network
        if not network.pred_obj_scores:
            return pointer
        with torch.inference_mode():
            shown = seen * pointer if network.fixed_no_obj_ptr else pointer
            hidden: Tensor = shown + (1 - seen) * network.no_obj_ptr
        return hidden

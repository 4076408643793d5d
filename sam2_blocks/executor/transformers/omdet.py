"""What OmDet-Turbo reads and says, without the compiled operators of torchvision.

The library's own processor wants ``torchvision.ops.batched_nms`` and is not to be had beside a
torchvision that cannot be imported. It does little: phrases become a sentence and tokens, and the
network's outputs become boxes of which those that overlap go. Here that needs nothing compiled.

Source: ``transformers.models.omdet_turbo.processing_omdet_turbo``; https://arxiv.org/abs/2403.06892.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam2_blocks.strategies.detect import suppress_by_class
from sam2_blocks.values import Hw

OMDET = "omdet-turbo"
MOST_TOKENS = 77
"""Of a phrase, and of the sentence that names them all; longer ones would be cut off."""
BEGINNING = "Detect"
NMS_IOU = 0.5  # of boxes of one phrase, as in the library


class OmDetProcessor:
    """Takes the place of the library's ``OmDetTurboProcessor``.

    Args:
        image_processor: makes tensors of pictures.
        tokenizer: makes tokens of text.
    """

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    @classmethod
    def of(cls, library: Any, folder: Path) -> OmDetProcessor:
        """Load what ``save_pretrained`` wrote."""
        return cls(
            library.AutoImageProcessor.from_pretrained(folder, local_files_only=True),
            library.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )

    def __call__(
        self, *, images: Sequence[Any], text: Sequence[Sequence[str]], **options: Any
    ) -> Any:
        """Make the network's inputs of pictures and the phrases of each."""
        inputs = self.image_processor(images=images, **options)
        sentences = [f"{BEGINNING} {', '.join(phrases)}." for phrases in text]
        classes = [phrase for phrases in text for phrase in phrases]
        for name, texts in (("tasks", sentences), ("classes", classes)):
            tokens = self.tokenizer(
                texts,
                padding="max_length",
                truncation=True,
                max_length=MOST_TOKENS,
                return_token_type_ids=False,
                return_tensors="pt",
            )
            inputs.update({f"{name}_{key}": value for key, value in tokens.items()})
        inputs["classes_structure"] = torch.tensor([len(phrases) for phrases in text])
        return inputs

    def post_process_grounded_object_detection(
        self, outputs: Any, *, threshold: float, target_sizes: Sequence[Hw]
    ) -> list[dict[str, torch.Tensor]]:
        """Return boxes, scores and numbers of phrases of each picture, the most certain first."""
        of_pictures = zip(
            outputs.decoder_coord_logits.float(),
            outputs.decoder_class_logits.float().sigmoid(),
            target_sizes,
            strict=True,
        )
        return [_read(boxes, scores, hw, threshold) for boxes, scores, hw in of_pictures]


def _read(
    boxes: torch.Tensor, scores: torch.Tensor, hw: Hw, threshold: float
) -> dict[str, torch.Tensor]:
    """Read the answer for one picture: boxes (Q, 4) by their centres, scores (Q, phrases)."""
    from transformers.image_transforms import center_to_corners_format

    count = scores.shape[1]
    best, places = scores.flatten().topk(len(boxes))  # as many as there are queries
    labels = places % count
    height, width = hw
    size = torch.tensor([width, height, width, height], device=boxes.device)
    corners = center_to_corners_format(boxes[places // count]) * size
    certain = best > threshold
    kept = certain.nonzero()[:, 0]
    chosen = suppress_by_class(
        corners[kept].cpu().numpy(),
        best[kept].cpu().numpy(),
        labels[kept].cpu().numpy().astype(np.int64),
        iou_threshold=NMS_IOU,
    )
    kept = kept[torch.from_numpy(chosen).to(kept.device)]
    clipped = torch.minimum(corners[kept].clamp(min=0), size)
    return {"boxes": clipped, "scores": best[kept], "labels": labels[kept]}

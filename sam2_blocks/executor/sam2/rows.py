"""Prompts of many images to rectangular batches for the prompt encoder.

Prompts are ragged: a box is two tokens, each point one, and a mask comes through another door. We
group prompts of equal shape instead of padding them, because padding tokens change the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.values import Embedding, Float32Array, Hw, Prompt, PromptSet

# Labels of the two corners of a box among point labels; source: sam2 `_predict`.
CORNER_LABELS = (2, 3)


@dataclass(frozen=True, eq=False)
class PromptRow:
    """One prompt and where it comes from.

    Attributes:
        item: index of the (embedding, prompts) pair.
        index: index of the prompt in its set.
        embedding: the picture it is about.
        coords: float32, (T, 2), xy in the encoder's square: box corners, then points.
        labels: int32, (T,).
        mask_input: float32, (1, h, w), or None.
    """

    item: int
    index: int
    embedding: Embedding
    coords: Float32Array
    labels: NDArray[np.int32]
    mask_input: Float32Array | None

    @property
    def shape_key(self) -> tuple[int, bool]:
        """What prompts must share to be decoded together."""
        return len(self.labels), self.mask_input is not None


def prompts_to_rows(
    items: Sequence[tuple[Embedding, PromptSet]], *, image_size: int, low_res_hw: Hw
) -> list[PromptRow]:
    """Scale prompts to the encoder's square.

    Args:
        items: pictures with prompts that `sam2_blocks.prompts.check_prompts` let through.
        image_size: side of the square in pixels.
        low_res_hw: size of the logits that a prompt may start from.

    Returns:
        One row a prompt, in the order of the items and of their prompts.

    Raises:
        ValueError: if a mask has another size than the model's low-resolution grid.
    """
    rows = []
    for item, (embedding, prompt_set) in enumerate(items):
        for index, prompt in enumerate(prompt_set.prompts):
            mask = prompt.mask_input
            if mask is not None and mask.shape != (1, *low_res_hw):
                raise ValueError(
                    f"image {embedding.image_id!r}: prompt {index}: mask_input wants logits of "
                    f"shape (1, {low_res_hw[0]}, {low_res_hw[1]}), got {mask.shape}. Pass "
                    "low_res_logits of an earlier prediction."
                )
            coords, labels = _prompt_to_points(prompt, embedding.image_hw, image_size)
            rows.append(PromptRow(item, index, embedding, coords, labels, prompt.mask_input))
    return rows


def rows_to_tensors(
    rows: Sequence[PromptRow], device: torch.device
) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
    """Stack rows of one group.

    Returns:
        Points as (coords (N, T, 2), labels (N, T)), None for rows of masks alone; and mask
        logits (N, 1, h, w), or None.
    """
    points, masks = None, None
    if len(rows[0].labels):
        coords = upload(np.stack([row.coords for row in rows]), device)
        points = coords, upload(np.stack([row.labels for row in rows]), device)
    given = [row.mask_input for row in rows if row.mask_input is not None]
    if given:
        masks = upload(np.stack(given).astype(np.float32, copy=False), device)
    return points, masks


def _prompt_to_points(
    prompt: Prompt, image_hw: Hw, image_size: int
) -> tuple[Float32Array, NDArray[np.int32]]:
    coords: list[Float32Array] = []
    labels: list[NDArray[np.int32]] = []
    if prompt.box_xyxy is not None:
        coords.append(np.asarray(prompt.box_xyxy, np.float32).reshape(2, 2))
        labels.append(np.array(CORNER_LABELS, np.int32))
    if prompt.point_coords is not None:
        coords.append(np.asarray(prompt.point_coords, np.float32).reshape(-1, 2))
        labels.append(np.asarray(prompt.point_labels, np.int32).reshape(-1))
    if not coords:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    return _scale(np.concatenate(coords), image_hw, image_size), np.concatenate(labels)


def _scale(coords: Float32Array, image_hw: Hw, image_size: int) -> Float32Array:
    """Divide, then multiply, in float32: the order of sam2 ``transform_coords``."""
    height, width = image_hw
    coords = np.divide(coords, np.array([width, height]), dtype=np.float32)
    return np.multiply(coords, image_size, dtype=np.float32)

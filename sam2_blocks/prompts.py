"""The check every prompt passes before it reaches a model, wherever it came from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.errors import PromptWarning
from sam2_blocks.values import Float32Array, Hw, Prompt, PromptSet

NO_PROMPT = Prompt(
    point_coords=np.full((1, 2), -1, np.float32), point_labels=np.full(1, -1, np.int32)
)
"""Asks for what the model makes of a picture alone: one point that is none.

Source: what ``SAM2ImagePredictor`` pads prompts without a box with.
"""


def check_prompts(
    prompt_set: PromptSet, image_hw: Hw, *, warn: bool = True, name: str = ""
) -> PromptSet:
    """Refuse prompts that mean nothing in this picture, and clip boxes to it.

    Args:
        prompt_set: the prompts of one picture; may be empty.
        image_hw: its size in pixels.
        warn: False clips silently, for servers: nobody reads their warnings, and Python remembers
            every different one.
        name: of the picture, for the warning.

    Returns:
        The same prompts, float32 and int32, every box inside the picture.

    Raises:
        ValueError: naming the prompt, if it is empty; if a box, point or mask has a wrong shape or
            is not finite; if a box is inverted or wholly outside; if a point is outside; if a
            label is neither 0 nor 1.

    Warns:
        PromptWarning: if boxes reach outside the picture and were clipped.
    """
    prompts = tuple(
        _checked(prompt, f"prompt {index}", image_hw)
        for index, prompt in enumerate(prompt_set.prompts)
    )
    clipped = [
        index
        for index, (before, after) in enumerate(zip(prompt_set.prompts, prompts, strict=True))
        if before.box_xyxy is not None and not _same(before.box_xyxy, after.box_xyxy)
    ]
    if clipped and warn:
        message = _clipping_message(clipped, prompt_set, image_hw)
        text = f"{name}: {message}" if name else message
        warnings.warn(text, PromptWarning, stacklevel=2)
    return PromptSet(prompts)


def _checked(prompt: Prompt, where: str, image_hw: Hw) -> Prompt:
    if prompt is NO_PROMPT:
        return prompt
    if (prompt.point_coords is None) != (prompt.point_labels is None):
        raise ValueError(f"{where}: point_coords and point_labels go together; give both or none")
    coords = labels = None
    if prompt.point_coords is not None and len(prompt.point_coords):
        coords = _checked_points(prompt.point_coords, where, image_hw)
        labels = _checked_labels(prompt.point_labels, len(coords), where)
    box = None if prompt.box_xyxy is None else _checked_box(prompt.box_xyxy, where, image_hw)
    logits = None if prompt.mask_input is None else _checked_mask_input(prompt.mask_input, where)
    if box is None and coords is None and logits is None:
        raise ValueError(f"{where} is empty; give a box, points or mask_input")
    return Prompt(box, coords, labels, logits)


def _checked_box(box_xyxy: object, where: str, image_hw: Hw) -> Float32Array:
    box = _float32(box_xyxy)
    if box.shape != (4,):
        raise ValueError(f"{where}: a box wants 4 numbers, got shape {box.shape}")
    x_min, y_min, x_max, y_max = edges = box.tolist()
    height, width = image_hw
    if not np.isfinite(box).all():
        raise ValueError(f"{where}: box {_shown(edges)} is not finite; drop it or fix its source")
    if x_min > x_max or y_min > y_max:
        raise ValueError(
            f"{where}: box {_shown(edges)} is inverted; give it as x_min, y_min, x_max, y_max"
        )
    if _is_outside(x_min, x_max, width) or _is_outside(y_min, y_max, height):
        raise ValueError(
            f"{where}: box {_shown(edges)} lies wholly outside the {width}x{height} image; "
            f"is it in pixels of this image?"
        )
    if min(x_min, y_min) < 0 or x_max > width or y_max > height:
        return np.clip(box, 0, np.array([width, height, width, height], np.float32))
    return box


def _is_outside(low: float, high: float, size: int) -> bool:
    """Tell whether an interval misses the picture; touching it from outside is missing it."""
    return low >= size or (low < 0 and high <= 0)


def _checked_points(point_coords: object, where: str, image_hw: Hw) -> Float32Array:
    coords = _float32(point_coords)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise ValueError(f"{where}: point_coords wants shape (P, 2), got {coords.shape}")
    height, width = image_hw
    inside = (coords >= 0).all(axis=1) & (coords <= (width, height)).all(axis=1)  # False for NaN
    if not inside.all():
        point = int(np.argmin(inside))
        raise ValueError(
            f"{where}: point {point} at {_shown(coords[point].tolist())} is not inside the "
            f"{width}x{height} image"
        )
    return coords


def _checked_labels(point_labels: object, count: int, where: str) -> NDArray[np.int32]:
    labels = np.asarray(point_labels)
    if labels.shape != (count,):
        raise ValueError(f"{where}: point_labels wants {count} labels, got shape {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{where}: point_labels must be 1 (foreground) or 0 (background), got {labels.tolist()}"
        )
    return labels.astype(np.int32)


def _checked_mask_input(mask_input: object, where: str) -> Float32Array:
    logits = _float32(mask_input)
    if logits.ndim != 3 or logits.shape[0] != 1 or logits.size == 0:
        raise ValueError(f"{where}: mask_input wants logits (1, h, w), got shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError(f"{where}: mask_input has values that are not finite")
    return logits


def _clipping_message(clipped: Sequence[int], prompt_set: PromptSet, image_hw: Hw) -> str:
    height, width = image_hw
    first = np.asarray(prompt_set.prompts[clipped[0]].box_xyxy).tolist()
    others = f", and {len(clipped) - 1} more" if len(clipped) > 1 else ""
    return (
        f"boxes reach outside the {width}x{height} image and were clipped to it: "
        f"prompt {clipped[0]} {_shown(first)}{others}"
    )


def _same(before: object, after: object) -> bool:
    return np.array_equal(_float32(before), np.asarray(after))


def _float32(values: object) -> Float32Array:
    with np.errstate(over="ignore"):  # becomes inf, which is refused with the prompt's name
        return np.asarray(values).astype(np.float32)


def _shown(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"

"""The arrays of one prompt: their shapes and values, whatever picture they are for.

`prompts` holds them against the size of a picture, and reads whole prompts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.values import Float32Array


def to_box(box_xyxy: object, where: str) -> Float32Array:
    """Make the four edges of a box.

    Args:
        box_xyxy: four numbers, x_min, y_min, x_max, y_max in pixels.
        where: names the prompt in messages.

    Returns:
        float32, (4,); not checked against a picture.

    Raises:
        ValueError: if there are not four of them.
    """
    box = _float32(box_xyxy)
    if box.shape != (4,):
        hint = ""
        if box.ndim == 1 and len(box) > 4:
            hint = " The rest is probably confidence and class: give the four edges alone."
        raise ValueError(f"{where}: a box wants 4 numbers, got shape {box.shape}.{hint}")
    return box


def to_points(point_coords: object, where: str) -> Float32Array:
    """Make the points of a prompt.

    Args:
        point_coords: P rows of x, y in pixels; may be empty.
        where: names the prompt in messages.

    Returns:
        float32, (P, 2); not checked against a picture.

    Raises:
        ValueError: if the rows are not of two numbers.
    """
    coords = _float32(point_coords)
    if coords.shape == (0,):
        return coords.reshape(0, 2)
    if coords.ndim != 2 or coords.shape[1] != 2:
        hint = ""
        if coords.ndim == 2 and coords.shape[1] == 3:
            hint = " The third column is probably the label: give it as point_labels."
        elif coords.ndim == 1:
            hint = " For one point give [[x, y]]."
        raise ValueError(f"{where}: point_coords wants shape (P, 2), got {coords.shape}.{hint}")
    return coords


def to_labels(
    point_labels: object, count: int, where: str, wanted: str = "point_labels must be"
) -> NDArray[np.int32]:
    """Make the labels of points.

    Args:
        point_labels: 1 for a point on the object, 0 for one beside it.
        count: how many points there are.
        where: names the prompt in messages.
        wanted: how the message begins to say what labels are.

    Returns:
        int32, (count,).

    Raises:
        ValueError: if they are not one a point, or a label is another number.
    """
    labels = np.asarray(point_labels)
    if labels.shape != (count,):
        raise ValueError(f"{where}: point_labels wants {count} labels, got shape {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{where}: {wanted} 1 (foreground) or 0 (background), got {labels.tolist()}"
        )
    return labels.astype(np.int32)


def to_mask_input(mask_input: object, where: str) -> Float32Array:
    """Make the logits that a prompt starts from.

    Args:
        mask_input: (1, h, w), low-resolution logits.
        where: names the prompt in messages.

    Returns:
        float32, (1, h, w).

    Raises:
        ValueError: if it has another shape, or a value is not finite.
    """
    logits = _float32(mask_input)
    if logits.ndim != 3 or logits.shape[0] != 1 or logits.size == 0:
        raise ValueError(f"{where}: mask_input wants logits (1, h, w), got shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError(f"{where}: mask_input has values that are not finite")
    return logits


def _float32(values: object) -> Float32Array:
    with np.errstate(over="ignore"):  # becomes inf, which is refused with the prompt's name
        return np.asarray(values).astype(np.float32)

"""What stands for prompts, and the check they pass before they reach a model."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from sam2_blocks.errors import PromptWarning
from sam2_blocks.prompt_arrays import to_box, to_labels, to_mask_input, to_points
from sam2_blocks.values import (
    AutomaticMasks,
    Float32Array,
    Hw,
    MaskPrediction,
    Prompt,
    PromptSet,
)

if TYPE_CHECKING:
    import supervision as sv

SLACK_PX = 1.0
"""How far a box or a point may be outside without a word: rounding, or a click on the edge."""

HUNDREDS_PX = 100
"""From this size on, boxes between 0 and 1 are no boxes in pixels."""

NO_PROMPT = Prompt(
    point_coords=np.full((1, 2), -1, np.float32), point_labels=np.full(1, -1, np.int32)
)
"""Asks for what the model makes of a picture alone: one point that is none.

Source: what ``SAM2ImagePredictor`` pads prompts without a box with.
"""


class CheckedPrompts(PromptSet):
    """Prompts that `check_prompts` has passed for pictures of one size; it takes them as they are.

    Args:
        prompts: float32 and int32, inside the picture.
        image_hw: its size in pixels.
    """

    def __init__(self, prompts: tuple[Prompt, ...], image_hw: Hw) -> None:
        super().__init__(prompts)
        object.__setattr__(self, "image_hw", image_hw)  # the class is frozen

    image_hw: Hw


def check_prompts(
    prompt_set: PromptSet, image_hw: Hw, *, warn: bool = True, name: str = ""
) -> CheckedPrompts:
    """Refuse prompts that mean nothing in this picture, and clip the others to it.

    Args:
        prompt_set: the prompts of one picture; may be empty.
        image_hw: its size in pixels.
        warn: False clips silently, for servers: nobody reads their warnings, and Python remembers
            every different one.
        name: of the picture, for the warning.

    Returns:
        The same prompts, float32 and int32, every box and point inside the picture.

    Raises:
        ValueError: naming the prompt, if it is empty; if a box, point or mask has a wrong shape or
            is not finite; if a box is inverted or wholly outside; if a point is more than a pixel
            outside; if a label is neither 0 nor 1.

    Warns:
        PromptWarning: if boxes reach more than a pixel outside and were clipped; if all boxes lie
            between 0 and 1 in a picture of hundreds of pixels.

    Example:
        >>> checked = check_prompts(PromptSet.from_boxes([[-0.5, 3, 8, 9]]), (20, 30))
        >>> checked.prompts[0].box_xyxy.tolist()
        [0.0, 3.0, 8.0, 9.0]
    """
    checked, bad = split_prompts(prompt_set, image_hw, warn=warn, name=name)
    if bad:
        raise ValueError(next(iter(bad.values())))
    return checked


def split_prompts(
    prompt_set: PromptSet, image_hw: Hw, *, warn: bool = True, name: str = ""
) -> tuple[CheckedPrompts, dict[int, str]]:
    """Part the prompts that mean something in this picture from those that do not.

    Args:
        prompt_set: the prompts of one picture; may be empty.
        image_hw: its size in pixels.
        warn: see `check_prompts`.
        name: of the picture, for the warning.

    Returns:
        The good ones in their order, as `check_prompts` returns them, and why each of the others is
        bad, by index.

    Warns:
        PromptWarning: as `check_prompts` does.
    """
    looked = look_at_prompts(prompt_set, image_hw)
    for hint in looked.hints if warn else ():
        _warn(name, hint)
    return looked.good, looked.bad


class LookedAt(NamedTuple):
    """Prompts that were held against the size of a picture.

    Attributes:
        good: those that mean something in it, as `check_prompts` returns them.
        bad: why each of the others does not, by index.
        hints: what is probably not meant, though it can be done.
    """

    good: CheckedPrompts
    bad: dict[int, str]
    hints: list[str]


def look_at_prompts(prompt_set: PromptSet, image_hw: Hw) -> LookedAt:
    """Do what `split_prompts` does, and return its warnings, for servers to send them.

    Args:
        prompt_set: the prompts of one picture; may be empty.
        image_hw: its size in pixels.
    """
    if isinstance(prompt_set, CheckedPrompts) and prompt_set.image_hw == image_hw:
        return LookedAt(prompt_set, {}, [])
    good = _boxes_inside(prompt_set.prompts, image_hw)
    hints: list[str] = []
    if good:
        if _look_normalized(good, image_hw):
            hints.append(_normalized_message(good, image_hw))
        return LookedAt(CheckedPrompts(tuple(good), image_hw), {}, hints)
    bad: dict[int, str] = {}
    clipped: list[int] = []
    for index, prompt in enumerate(prompt_set.prompts):
        try:
            good.append(_checked(prompt, f"prompt {index}", image_hw))
        except ValueError as error:
            bad[index] = str(error)
        else:
            if _reaches_outside(prompt, image_hw):
                clipped.append(index)
    if clipped:
        hints.append(_clipping_message(clipped, prompt_set, image_hw))
    if _look_normalized(good, image_hw):
        hints.append(_normalized_message(good, image_hw))
    return LookedAt(CheckedPrompts(tuple(good), image_hw), bad, hints)


def to_prompt_set(given: object) -> PromptSet:
    """Make prompts of what stands for prompts: a set, one or more of them, detections, rows.

    Args:
        given: a `PromptSet`; a `Prompt` or a list of them; ``supervision.Detections``, whose boxes
            are the prompts; an array or a list of boxes (N, 4); or a list of mappings with
            ``box_xyxy``, ``point_coords`` and ``point_labels``.

    Raises:
        TypeError: if it is none of these.
        ValueError: if rows or mappings are not of the right shape.
    """
    if isinstance(given, PromptSet):
        return given
    if isinstance(given, Prompt):
        return PromptSet((given,))
    if is_detections(given):
        return PromptSet.from_boxes(given.xyxy)
    if isinstance(given, list | tuple):
        if given and all(isinstance(one, Prompt) for one in given):
            return PromptSet(tuple(given))
        if given and all(isinstance(one, Mapping) for one in given):
            return parse_prompts(list(given))
        return PromptSet.from_boxes(given)
    if isinstance(given, np.ndarray):
        return PromptSet.from_boxes(given)
    raise TypeError(
        "wants prompts: a PromptSet, supervision.Detections, boxes (N, 4) or a list of "
        f"mappings with box_xyxy or point_coords; got {type(given).__name__}."
        f"{_advice(given)}"
    )


def is_detections(value: object) -> TypeGuard[sv.Detections]:
    """Whether a value is ``supervision.Detections``; supervision is imported only if it may be."""
    if type(value).__module__.partition(".")[0] in {"builtins", "numpy"}:
        return False
    import supervision as sv

    return isinstance(value, sv.Detections)


def _advice(given: object) -> str:
    if isinstance(given, AutomaticMasks):
        return " For the boxes of its masks give to_detections(masks)."
    if isinstance(given, MaskPrediction):
        return " For the boxes of its masks give PromptSet.from_boxes(prediction.mask_box_xyxy)."
    if isinstance(given, Mapping):
        return " For one prompt give a list of one mapping."
    return ""


def parse_prompts(value: object) -> PromptSet:
    """Make prompts from a list of mappings.

    Args:
        value: list of ``{box_xyxy, point_coords, point_labels, class_name}``; labels default to
            foreground.

    Raises:
        TypeError: if it is not a list of mappings.
        ValueError: if a mapping is empty, has unknown keys or rows of the wrong length.
    """
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise TypeError(f"wants a list of mappings with box_xyxy or point_coords, got {value!r}")
    return PromptSet(tuple(_parse_prompt(i, row) for i, row in enumerate(value)))


def prompts_to_plain(prompts: PromptSet) -> list[dict[str, Any]]:
    """Write prompts as the rows that `parse_prompts` reads.

    Raises:
        ValueError: if a prompt has ``mask_input``, which has no such form.
    """
    return [prompt_to_plain(f"prompt {i}", prompt) for i, prompt in enumerate(prompts.prompts)]


def prompt_to_plain(where: str, prompt: Prompt) -> dict[str, Any]:
    """Write one prompt as a row.

    Args:
        where: what to call it in messages.
        prompt: the prompt.

    Raises:
        ValueError: as `prompts_to_plain`.
    """
    if prompt.mask_input is not None:
        raise ValueError(f"{where}: mask_input cannot be written as JSON; leave it out")
    arrays = {
        "box_xyxy": prompt.box_xyxy,
        "point_coords": prompt.point_coords,
        "point_labels": prompt.point_labels,
    }
    row = {name: array.tolist() for name, array in arrays.items() if array is not None}
    return row if prompt.class_name is None else {**row, "class_name": prompt.class_name}


def _parse_prompt(index: int, row: Mapping[str, Any]) -> Prompt:
    where, name = f"prompt {index}", row.get("class_name")
    if not row or set(row) - {"box_xyxy", "point_coords", "point_labels", "class_name"}:
        raise ValueError(
            f"{where}: wants box_xyxy, point_coords and point_labels, got {sorted(row)}"
        )
    if not isinstance(name, str | None) or name == "":
        raise ValueError(f"{where}: class_name wants a text, got {name!r}")
    try:
        box = to_box(row["box_xyxy"], where) if "box_xyxy" in row else None
        if "point_coords" not in row:
            return Prompt(box_xyxy=box, class_name=name)
        coords = to_points(row["point_coords"], where)
        labels = row.get("point_labels", np.ones(len(coords)))
        checked = to_labels(labels, len(coords), where, "labels are")
        return Prompt(box, coords, checked, class_name=name)
    except (TypeError, ValueError, OverflowError) as error:
        message = str(error)
        raise ValueError(message if message.startswith(where) else f"{where}: {message}") from error


def _boxes_inside(prompts: Sequence[Prompt], image_hw: Hw) -> list[Prompt]:
    """Check all at once, if all are boxes alone that `_checked` would let pass as they are.

    Most of what a detector finds is, and prompt by prompt takes as long as all else in a chain.

    Returns:
        The same prompts in arrays of our own; none if any needs a closer look.
    """
    given = [prompt.box_xyxy for prompt in prompts if _is_plain_box(prompt)]
    if not given or len(given) < len(prompts):
        return []
    boxes = np.array(given, np.float32)
    x_min, y_min, x_max, y_max = boxes.T
    height, width = image_hw
    inside = (x_min >= 0) & (y_min >= 0) & (x_max <= width) & (y_max <= height)
    if not (inside & (x_min <= x_max) & (y_min <= y_max)).all():  # NaN is not, either
        return []
    named = zip(boxes, prompts, strict=True)
    return [Prompt(box_xyxy=box, class_name=prompt.class_name) for box, prompt in named]


def _is_plain_box(prompt: Prompt) -> bool:
    box = prompt.box_xyxy
    alone = prompt.point_coords is None and prompt.point_labels is None
    if box is None or prompt.mask_input is not None or not alone:
        return False
    return type(box) is np.ndarray and box.dtype == np.float32 and box.shape == (4,)


def _checked(prompt: Prompt, where: str, image_hw: Hw) -> Prompt:
    if prompt is NO_PROMPT:
        return prompt
    if (prompt.point_coords is None) != (prompt.point_labels is None):
        raise ValueError(f"{where}: point_coords and point_labels go together; give both or none")
    coords = labels = None
    if prompt.point_coords is not None and len(prompt.point_coords):
        coords = _checked_points(prompt.point_coords, where, image_hw)
        labels = to_labels(prompt.point_labels, len(coords), where)
    box = None if prompt.box_xyxy is None else _checked_box(prompt.box_xyxy, where, image_hw)
    logits = None if prompt.mask_input is None else to_mask_input(prompt.mask_input, where)
    if box is None and coords is None and logits is None:
        raise ValueError(f"{where} is empty; give a box, points or mask_input")
    return Prompt(box, coords, labels, logits, prompt.class_name)


def _checked_box(box_xyxy: object, where: str, image_hw: Hw) -> Float32Array:
    box = to_box(box_xyxy, where)
    x_min, y_min, x_max, y_max = edges = box.tolist()
    height, width = image_hw
    if not all(map(math.isfinite, edges)):
        raise ValueError(f"{where}: box {_shown(edges)} is not finite; drop it or fix its source")
    if x_min > x_max or y_min > y_max:
        raise ValueError(
            f"{where}: box {_shown(edges)} is inverted; give it as x_min, y_min, x_max, y_max."
            f"{_xywh_hint(edges, image_hw)}"
        )
    if min(x_min, y_min) >= 0 and x_max <= width and y_max <= height:
        return box
    nearly_inside = (
        min(x_min, y_min) >= -SLACK_PX and max(x_max - width, y_max - height) <= SLACK_PX
    )
    misses = _is_outside(x_min, x_max, width) or _is_outside(y_min, y_max, height)
    if misses and not nearly_inside:
        raise ValueError(
            f"{where}: box {_shown(edges)} lies wholly outside the {width}x{height} image; "
            "is it in pixels of this image?"
        )
    return np.clip(box, 0, np.array([width, height, width, height], np.float32))


def _xywh_hint(edges: Sequence[float], image_hw: Hw) -> str:
    """What an inverted box would be if its last two numbers were a size, if it fits then."""
    x, y, box_width, box_height = edges
    height, width = image_hw
    if min(box_width, box_height) <= 0:
        return ""
    for name, left, top in (
        ("x, y", x, y),
        ("centre x, centre y", x - box_width / 2, y - box_height / 2),
    ):
        right, bottom = left + box_width, top + box_height
        inside = min(left, top) >= 0 and right <= width + SLACK_PX and bottom <= height + SLACK_PX
        if inside:
            meant = _shown([left, top, right, bottom])
            return f" As {name}, width, height it would be {meant}: is that what was meant?"
    return ""


def _is_outside(low: float, high: float, size: int) -> bool:
    """Tell whether an interval misses the picture; touching it from outside is missing it."""
    return low >= size or (low < 0 and high <= 0)


def _checked_points(point_coords: object, where: str, image_hw: Hw) -> Float32Array:
    coords = to_points(point_coords, where)
    height, width = image_hw
    last = np.array([width, height], np.float32)
    inside = (coords >= 0).all() and (coords <= last).all()  # False for NaN
    if inside:
        return coords
    near = (coords >= -SLACK_PX).all(axis=1) & (coords <= last + SLACK_PX).all(axis=1)
    if not near.all():
        point = int(np.argmin(near))
        raise ValueError(
            f"{where}: point {point} at {_shown(coords[point].tolist())} is not inside the "
            f"{width}x{height} image"
        )
    return np.clip(coords, 0, last)


def _reaches_outside(prompt: Prompt, image_hw: Hw) -> bool:
    """Whether a good prompt's box had to be clipped by more than rounding."""
    if prompt.box_xyxy is None:
        return False
    x_min, y_min, x_max, y_max = map(float, prompt.box_xyxy)
    height, width = image_hw
    return min(x_min, y_min) < -SLACK_PX or max(x_max - width, y_max - height) > SLACK_PX


def _clipping_message(clipped: Sequence[int], prompt_set: PromptSet, image_hw: Hw) -> str:
    height, width = image_hw
    first = np.asarray(prompt_set.prompts[clipped[0]].box_xyxy).tolist()
    others = f", and {len(clipped) - 1} more" if len(clipped) > 1 else ""
    return (
        f"boxes reach outside the {width}x{height} image and were clipped to it: "
        f"prompt {clipped[0]} {_shown(first)}{others}"
    )


def _look_normalized(prompts: Sequence[Prompt], image_hw: Hw) -> bool:
    """Whether all boxes and points lie between 0 and 1, where that is a corner of a pixel."""
    if min(image_hw) < HUNDREDS_PX:
        return False
    places = _places_of(prompts)
    fractions = any((place % 1).any() for place in places)  # [0, 0, 1, 1] may be a pixel
    return fractions and all(place.max() <= 1 for place in places)


def _places_of(prompts: Sequence[Prompt]) -> list[Float32Array]:
    asked = [prompt for prompt in prompts if prompt is not NO_PROMPT]
    given = [one for prompt in asked for one in (prompt.box_xyxy, prompt.point_coords)]
    return [one for one in given if one is not None]


def _normalized_message(prompts: Sequence[Prompt], image_hw: Hw) -> str:
    height, width = image_hw
    place = next(one for one in _places_of(prompts) if (one % 1).any())
    what = "box" if place.ndim == 1 else "point"
    return (
        f"every {what} lies between 0 and 1, such as {_shown(place.ravel().tolist())}, in an image "
        f"of {width}x{height} pixels. They are in pixels: multiply shares by {width} and {height}"
    )


def _warn(name: str, message: str) -> None:
    text = f"{name}: {message}" if name else message
    warnings.warn(text, PromptWarning, stacklevel=_outside())


def _outside() -> int:
    """How far up the caller of this module is, as ``stacklevel`` counts from `_warn`."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame, level = frame.f_back, level + 1
    return level


def _shown(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"

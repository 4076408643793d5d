"""Files of prompts, one a picture: rows of clicks and boxes, Labelme's shapes, or masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.files.reading import read_json
from sam2_blocks.formats.coco_boxes import check_size
from sam2_blocks.formats.images import open_picture
from sam2_blocks.formats.labelme_prompts import LabelmeObject, labelme_objects
from sam2_blocks.formats.rows import finite
from sam2_blocks.masks.rle import mask_to_rle, rle_to_box_xyxy
from sam2_blocks.prompts import parse_prompts
from sam2_blocks.values import Hw, Prompt, PromptSet

MASK_SUFFIXES = frozenset({".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"})
INSIDE_LOGIT = 10.0
"""Of a pixel that is surely inside; minus this is surely outside."""


def load_prompts(path: Path, image_hw: Hw, *, mask_px: int = 256) -> PromptSet:
    """Read the prompts of one picture.

    Args:
        path: JSON rows as `parse_prompts` reads them, alone or as ``prompts`` of a mapping, whose
            ``objects`` may have the classes, as the page saves them; a file of Labelme, see
            `labelme_prompts`; or a picture of masks, in which each value but 0 is an object.
        image_hw: size of the picture.
        mask_px: side of the masks that the model takes, pixels.

    Raises:
        ValueError: if the file cannot be read, or masks have another size than the picture; the
            message gives the file.
    """
    if path.suffix.lower() in MASK_SUFFIXES:
        return _load_masks(path, image_hw, mask_px)
    data = read_json(path)
    try:
        if isinstance(data, dict) and isinstance(data.get("shapes"), list):
            return _load_labelme(data, image_hw, mask_px)
        return parse_prompts(_rows_of(data) if isinstance(data, dict) else data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _rows_of(data: Mapping[str, Any]) -> Any:
    """The prompts of a file, with the classes of the objects that the page saves beside them."""
    rows, objects = data.get("prompts", data), data.get("objects")
    if not (isinstance(rows, list) and isinstance(objects, list) and len(rows) == len(objects)):
        return rows
    if not all(isinstance(one, Mapping) for one in (*rows, *objects)):
        return rows
    names = [one.get("class_name") for one in objects]
    pairs = zip(rows, names, strict=True)
    return [{"class_name": name, **row} if name else row for row, name in pairs]


def _load_labelme(data: Mapping[str, Any], image_hw: Hw, mask_px: int) -> PromptSet:
    listed = [data.get(name) for name in ("imageHeight", "imageWidth")]
    height, width = (0 if value is None else int(finite(value)) for value in listed)
    check_size("says the picture", (height, width), image_hw)
    return PromptSet(tuple(_prompt_of(one, mask_px) for one in labelme_objects(data, image_hw)))


def _prompt_of(one: LabelmeObject, mask_px: int) -> Prompt:
    masked = Prompt() if one.mask is None else _mask_to_prompt(one.mask, mask_px)
    boxed = masked.box_xyxy if one.box_xyxy is None else np.array(one.box_xyxy, np.float32)
    coords = np.array([xy for xy, _ in one.points], np.float32) if one.points else None
    labels = np.array([on for _, on in one.points], np.int32) if one.points else None
    return Prompt(boxed, coords, labels, masked.mask_input, one.class_name)


def _load_masks(path: Path, image_hw: Hw, mask_px: int) -> PromptSet:
    try:
        with open_picture(path, label=str(path)) as picture:
            values = np.asarray(
                picture if picture.mode in ("P", "L", "1") else picture.convert("I")
            )
    except ImageError as error:
        raise ValueError(str(error)) from error
    if values.shape != image_hw:
        (height, width), (high, wide) = values.shape, image_hw
        raise ValueError(
            f"{path}: the masks are {width}x{height} pixels, their picture is {wide}x{high}"
        )
    numbers = [number for number in np.unique(values).tolist() if number]
    return PromptSet(tuple(_mask_to_prompt(values == number, mask_px) for number in numbers))


def _mask_to_prompt(mask: NDArray[np.bool_], mask_px: int) -> Prompt:
    """The box of a mask, and its share in each cell of the model's grid as logits."""
    x0, y0, x1, y1 = rle_to_box_xyxy(mask_to_rle(mask)).tolist()
    small = Pil.fromarray(mask.astype(np.float32)).resize((mask_px, mask_px), Pil.Resampling.BOX)
    logits = (np.asarray(small, np.float32) * 2 - 1) * INSIDE_LOGIT
    return Prompt(box_xyxy=np.array([x0, y0, x1 + 1, y1 + 1], np.float32), mask_input=logits[None])

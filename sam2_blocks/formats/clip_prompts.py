"""Prompts on frames of a clip as plain data: rows of ``frame_index``, ``tracker_id`` and a place.

A place is ``box_xyxy``, ``point_coords`` with ``point_labels``, a box and points, or ``mask`` as
COCO run lengths. A row may say what the object is, as ``class_name``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.clips import ClipPrompt
from sam2_blocks.errors import did_you_mean
from sam2_blocks.files.reading import read_json
from sam2_blocks.masks.rle import coco_to_rle, rle_to_coco
from sam2_blocks.prompts import parse_prompts, prompt_to_plain
from sam2_blocks.values import Prompt, Rle

PLACE = ("box_xyxy", "point_coords", "point_labels")
KEYS = ("frame_index", "tracker_id", *PLACE, "mask", "class_name")


def load_clip_prompts(path: Path) -> tuple[ClipPrompt, ...]:
    """Read a JSON file of rows, alone or as ``prompts`` of a mapping.

    Raises:
        ValueError: if the file cannot be read, or a row is wrong; the message gives the file.
    """
    data = read_json(path)
    try:
        return parse_clip_prompts(data.get("prompts", data) if isinstance(data, dict) else data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse_clip_prompts(value: object) -> tuple[ClipPrompt, ...]:
    """Make prompts of rows; see the module.

    Raises:
        TypeError: if it is not a list of mappings.
        ValueError: if a row lacks something, has unknown keys, or its place is wrong.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(row, Mapping) for row in value):
        raise TypeError(
            "wants a list of mappings with frame_index, tracker_id and box_xyxy, point_coords or "
            f"mask, got {_shown(value)}"
        )
    return tuple(_parse(f"prompt {number}", row) for number, row in enumerate(value))


def clip_prompts_to_plain(prompts: Sequence[ClipPrompt]) -> list[dict[str, Any]]:
    """Write prompts as the rows that `parse_clip_prompts` reads.

    Raises:
        ValueError: if a prompt has ``mask_input``, which has no such form.
    """
    return [
        {
            "frame_index": one.frame,
            "tracker_id": one.tracker_id,
            "class_name": one.class_name,
            **_place_to_plain(f"prompt {number}", one.prompt),
        }
        for number, one in enumerate(prompts)
    ]


def check_clip_prompts(value: object) -> None:
    """Check that a value is a tuple or list of `ClipPrompt`.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(one, ClipPrompt) for one in value):
        raise TypeError(f"wants a list of ClipPrompt, got {_shown(value)}")


def _parse(where: str, row: Mapping[str, Any]) -> ClipPrompt:
    for key in row:
        if key not in KEYS:
            raise ValueError(f"{where}: knows no {key!r}.{did_you_mean(str(key), KEYS)}")
    return ClipPrompt(
        _number(where, row, "frame_index"),
        _number(where, row, "tracker_id"),
        _parse_place(where, row),
        _name(where, row.get("class_name", "object")),
    )


def _parse_place(where: str, row: Mapping[str, Any]) -> Prompt | Rle:
    place = {key: row[key] for key in PLACE if key in row}
    if bool(place) == ("mask" in row):
        got = "both" if place else "neither"
        raise ValueError(f"{where}: wants a mask, or a box and points; got {got}")
    try:
        if not place:
            return coco_to_rle(_mapping(row["mask"]))
        [prompt] = parse_prompts([place]).prompts
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).removeprefix('prompt 0').lstrip(': ')}") from error
    return prompt


def _place_to_plain(where: str, prompt: Prompt | Rle) -> dict[str, Any]:
    if isinstance(prompt, Rle):
        return {"mask": rle_to_coco(prompt)}
    return prompt_to_plain(where, prompt)


def _number(where: str, row: Mapping[str, Any], key: str) -> int:
    number = row.get(key)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        got = "nothing" if key not in row else repr(number)
        raise ValueError(f"{where}: wants {key} as a whole number from 0, got {got}")
    return number


def _name(where: str, name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{where}: wants class_name as text, got {name!r}")
    return name


def _mapping(mask: object) -> Mapping[str, Any]:
    if not isinstance(mask, Mapping):
        raise ValueError(f"wants mask as COCO run lengths, size and counts, got {_shown(mask)}")
    return mask


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}…"

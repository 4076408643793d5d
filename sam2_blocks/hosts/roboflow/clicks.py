"""Clicks as the engine writes them: labeled points, which are all of one object.

In its block of SAM 3 they are one object more where there are boxes, too, and that object has a
class of its own. Prompts in our own form are others: beside boxes, they refine these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.hosts.roboflow.engine import RLE_KIND
from sam2_blocks.language.manifest import Manifest
from sam2_blocks.values import Prompt, PromptSet

if TYPE_CHECKING:
    import supervision as sv

Row = Mapping[str, Any]

CLICKED_CLASS = ("foreground", -1)
"""Name and number of what was clicked, as in the engine's block of SAM 3."""


class Clickable(NamedTuple):
    """Inputs of a block of which one takes clicks and the other boxes; either will do."""

    prompts: str
    boxes: str


def find_clickable(manifest: Manifest) -> Clickable | None:
    """The inputs for clicks and for boxes of a block that wants one of them and finds masks."""
    if not all(RLE_KIND in output.kinds for output in manifest.outputs.values()):
        return None
    for group in manifest.require.at_least_one:
        prompts = [name for name in group if "prompts" in manifest.inputs[name].kinds]
        boxes = [name for name in group if name not in prompts]
        if prompts and boxes:
            return Clickable(prompts[0], boxes[0])
    return None


def points_to_prompts(value: Any) -> Any:
    """Make the prompt of one object of the engine's labeled points; other prompts stay.

    Args:
        value: ``{x, y, positive}``, ``(x, y)`` or ``(x, y, positive)``, one or more.
    """
    if not is_clicks(value):
        return value
    rows = [(p["x"], p["y"], p.get("positive", True)) if isinstance(p, dict) else p for p in value]
    labels = [int(row[2]) if len(row) == 3 else 1 for row in rows]
    coords = np.array([row[:2] for row in rows], np.float32)
    return PromptSet((Prompt(None, coords, np.array(labels, np.int32)),))


def is_clicks(value: Any) -> bool:
    """Whether a value is labeled points rather than prompts in our own form."""
    return isinstance(value, list) and bool(value) and all(map(_is_point, value))


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return {"x", "y"} <= value.keys()
    return isinstance(value, list | tuple) and len(value) in (2, 3)


def split_clicks(row: Row, sockets: Clickable | None) -> list[Row]:
    """Split a row with boxes and clicks into one with the boxes and one with the clicks.

    Args:
        row: values by input; an empty list of clicks beside boxes counts as no clicks.
        sockets: the inputs for boxes and clicks; None if the block has not both.

    Returns:
        One row, or two.
    """
    if sockets is None:
        return [row]
    if not is_clicks(row.get(sockets.prompts)):
        none = row.get(sockets.prompts) == [] and row.get(sockets.boxes) is not None
        return [{**row, sockets.prompts: None} if none else row]
    clicks = {**row, sockets.boxes: None}
    if row.get(sockets.boxes) is None:
        return [clicks]
    return [{**row, sockets.prompts: None}, clicks]


def join_clicks(
    rows: Sequence[Row], parts: Sequence[Sequence[Row]], made: Sequence[Row], sockets: Clickable
) -> list[dict[str, Any]]:
    """Put what was made of the parts of each row into one.

    Args:
        rows: as they came.
        parts: what `split_clicks` made of each.
        made: outputs of all parts, in order.
        sockets: where clicks and boxes were.
    """
    left = iter(made)
    joined = []
    for row, of_row in zip(rows, parts, strict=True):
        outputs = [dict(one) for one in islice(left, len(of_row))]
        if is_clicks(row.get(sockets.prompts)):
            outputs[-1] = {name: _clicked(value) for name, value in outputs[-1].items()}
        joined.append({name: _below([one[name] for one in outputs]) for name in outputs[0]})
    return joined


def _clicked(found: sv.Detections) -> sv.Detections:
    """Give what was clicked the class of what is, and ids that no row of boxes has."""
    from sam2_blocks.masks.detections import derive_ids

    name, number = CLICKED_CLASS
    found.class_id = np.full(len(found), number)
    parents = found.data["parent_id"]
    found.data["class_name"] = np.array([name] * len(found), np.str_)
    found.data["detection_id"] = derive_ids(found, str(parents[0]) if len(found) else "")
    return found


def _below(parts: Sequence[sv.Detections]) -> sv.Detections:
    """The rows of all parts; columns that only boxes have are empty for clicks."""
    from sam2_blocks.masks.merging import SOURCE_COLUMN, concatenate_detections

    given = [part for part in parts if len(part)]
    if len(given) < 2:
        return given[0] if given else parts[0]
    boxes, clicks = given
    more = {name: _empty_like(column, clicks) for name, column in boxes.data.items()}
    clicks = replace(clicks, data={**more, **clicks.data})
    joined = concatenate_detections([boxes, clicks])
    del joined.data[SOURCE_COLUMN]
    return joined


def _empty_like(column: Any, rows: sv.Detections) -> NDArray[Any]:
    """A column of nothing, of the same type."""
    column = np.asarray(column)
    nothing = {"f": np.nan, "O": None, "U": "", "S": b""}.get(column.dtype.kind, 0)
    return np.full((len(rows), *column.shape[1:]), nothing, column.dtype)

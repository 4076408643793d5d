"""What a labeller drew with smart tools → prompts in pixels.

Clicks with the same label are one object. Each rectangle is an object, too, and takes the clicks
of its label; where there are several, the clicks nearest to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sam2_blocks.requests import Box, Point, Sam2Prompt
from sam2_blocks.service.errors import RequestError
from sam2_blocks.values import Hw

LABELS = "labels"
POINT, BOX = "keypoint", "rectangle"

Labels = tuple[str, ...]
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Clicks:
    """What one call of a smart tool asks for.

    Attributes:
        picture: name of the picture's tag.
        image_hw: size of the picture, as Label Studio shows it.
        objects: the labels that were chosen and the prompt, one an object.
    """

    picture: str
    image_hw: Hw
    objects: tuple[tuple[Labels, Sam2Prompt], ...]


@dataclass
class _Drawn:
    points: list[Point] = field(default_factory=list)
    boxes: list[Corners] = field(default_factory=list)


def read_clicks(results: Sequence[Mapping[str, Any]]) -> Clicks:
    """Read ``context.result`` of a request.

    Args:
        results: key points and rectangles, in percent of the picture; others are left out.

    Raises:
        RequestError: if one of them is wrong, or nothing says where an object is.
    """
    labels = _labels_of(results)
    drawn: dict[Labels, _Drawn] = {}
    picture, image_hw = "", (0, 0)
    for result in results:
        form = str(result.get("type", "")).removesuffix(LABELS)
        if form not in (POINT, BOX):
            continue
        try:
            picture, image_hw = str(result["to_name"]), _size_of(result)
            _take(drawn.setdefault(labels.get(_id_of(result), ()), _Drawn()), result, form)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"context.result: a {form} is malformed: {error!r}.") from error
    objects = [(label, prompt) for label, one in drawn.items() for prompt in _prompts(one)]
    if not objects:
        raise RequestError("nothing to segment: click on an object, or draw a rectangle around it.")
    return Clicks(picture, image_hw, tuple(objects))


def _labels_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Labels]:
    """The labels of every region; plain tags have theirs in a result of its own, by the same id."""
    found = {}
    for result in results:
        value = result.get("value")
        chosen = value.get(str(result.get("type"))) if isinstance(value, Mapping) else None
        if isinstance(chosen, list) and chosen:
            found[_id_of(result)] = tuple(map(str, chosen))
    return found


def _id_of(result: Mapping[str, Any]) -> str:
    return str(result.get("id", id(result)))


def _size_of(result: Mapping[str, Any]) -> Hw:
    if result.get("image_rotation"):
        raise RequestError("the picture is turned. Turn it back to use smart tools.")
    height, width = int(result["original_height"]), int(result["original_width"])
    if min(height, width) < 1:
        raise ValueError(f"the picture has {width} x {height} pixels")
    return height, width


def _take(drawn: _Drawn, result: Mapping[str, Any], form: str) -> None:
    height, width = _size_of(result)
    value = result["value"]
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    if form == POINT:
        is_positive = bool(result.get("is_positive", True))
        drawn.points.append(Point(x=_inside(x, width), y=_inside(y, height), positive=is_positive))
        return
    size = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    x0, y0, x1, y1 = _turned(x, y, *size, float(value.get("rotation") or 0))
    # Sent as the centre and the size, which have to be more than nothing.
    drawn.boxes.append((x0, y0, max(x1, x0 + 1e-3), max(y1, y0 + 1e-3)))


def _inside(value: float, length: int) -> float:
    """A click on the very border is one on the last pixel."""
    return min(max(value, 0.0), length - 1.0) if -1 <= value <= length + 1 else value


def _turned(x: float, y: float, width: float, height: float, degrees: float) -> Corners:
    """The upright box around a rectangle that is turned clockwise about its first corner."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [
        (x + dx * cos - dy * sin, y + dx * sin + dy * cos)
        for dx, dy in ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height))
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _prompts(drawn: _Drawn) -> list[Sam2Prompt]:
    if not drawn.boxes:
        if not any(point.positive for point in drawn.points):
            raise RequestError(
                "a click beside the object needs one on it. Click on the object first."
            )
        return [Sam2Prompt(points=drawn.points)]
    points: list[list[Point]] = [[] for _ in drawn.boxes]
    for point in drawn.points:
        distances = [_distance(point, box) for box in drawn.boxes]
        points[distances.index(min(distances))].append(point)
    return [
        Sam2Prompt(box=_to_box(*box), points=own or None)
        for box, own in zip(drawn.boxes, points, strict=True)
    ]


def _distance(point: Point, box: Corners) -> float:
    """How far a point is from a box; 0 inside."""
    x0, y0, x1, y1 = box
    return math.hypot(max(x0 - point.x, 0, point.x - x1), max(y0 - point.y, 0, point.y - y1))


def _to_box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(x=(x0 + x1) / 2, y=(y0 + y1) / 2, width=x1 - x0, height=y1 - y0)

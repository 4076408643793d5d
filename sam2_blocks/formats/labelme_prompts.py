"""Shapes of Labelme as prompts: points and lines are clicks, outlines and bitmaps are masks.

Shapes with one ``group_id`` are one object; any other shape is an object of its own. A point or a
line whose label is one of `BACKGROUND` says what its object is not, so it wants a ``group_id``.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.images import open_picture
from sam2_blocks.formats.rows import finite
from sam2_blocks.masks.filling import fill_parts
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Hw

BACKGROUND = frozenset({"background", "_background_", "negative", "bg", "neg"})
"""Labels, in any case, of what an object is not."""

LINE_CLICKS = 5
"""Clicks that a line becomes, at equal distances, both ends among them."""

Row = Mapping[str, Any]
Xy = tuple[float, float]

_CLICKED = frozenset({"point", "points", "line", "linestrip"})
_BOXED = frozenset({"rectangle", "circle"})
_FILLED = frozenset({"polygon", "mask", "oriented_rectangle"})


class LabelmeObject:
    """What the shapes of one object say.

    Args:
        shapes: of one group, or one shape.
        image_hw: size of the picture.

    Attributes:
        points: x, y of clicks, with 1 on the object and 0 off it.
        box_xyxy: around its rectangles and circles, if there are any.
        mask: its outlines and bitmaps together, bool (H, W), if there are any.
        class_name: the label of its first shape that is on it.

    Raises:
        ValueError: if a shape is none of Labelme's, or nothing is on the object; other errors where
            a shape is malformed.
    """

    def __init__(self, shapes: Sequence[Row], image_hw: Hw) -> None:
        self.points: list[tuple[Xy, int]] = []
        self.box_xyxy: tuple[float, float, float, float] | None = None
        self.mask: NDArray[np.bool_] | None = None
        labels = [str(shape["label"]) for shape in shapes if shape.get("label")]
        on = (label for label in labels if label.casefold() not in BACKGROUND)
        self.class_name = next(on, None)
        for shape in shapes:
            self._add(shape, image_hw)
        if self.box_xyxy is None and self.mask is None and not any(on for _, on in self.points):
            raise ValueError(
                f"a {shapes[0].get('label')!r} shape says only what an object is not; give it the "
                "group_id of the object"
            )

    def _add(self, shape: Row, image_hw: Hw) -> None:
        sort = shape.get("shape_type") or "polygon"
        points = [(finite(x), finite(y)) for x, y in shape["points"]]
        if not points:
            raise ValueError(f"a {sort} wants points, got none")
        off = str(shape.get("label")).casefold() in BACKGROUND
        if sort in _CLICKED:
            clicks = points if sort in ("point", "points") else _along(points)
            self.points += [(click, int(not off)) for click in clicks]
        elif off:
            raise ValueError(f"only points and lines can be {shape['label']!r}, got a {sort}")
        elif sort in _BOXED:
            self._widen(_corners(sort, points))
        elif sort in _FILLED:
            mask = _bitmap(shape, points, image_hw) if sort == "mask" else _filled(points, image_hw)
            self.mask = mask if self.mask is None else self.mask | mask
        else:
            raise ValueError(f"shape_type {sort!r} is none of Labelme's")

    def _widen(self, corners: tuple[Xy, Xy]) -> None:
        (x0, y0), (x1, y1) = corners
        if self.box_xyxy is not None:
            left, top, right, bottom = self.box_xyxy
            x0, y0, x1, y1 = min(x0, left), min(y0, top), max(x1, right), max(y1, bottom)
        self.box_xyxy = x0, y0, x1, y1


def labelme_objects(data: Row, image_hw: Hw) -> list[LabelmeObject]:
    """Read the objects of one file, in their order.

    Args:
        data: what is in it.
        image_hw: size of the picture.

    Raises:
        ValueError: naming the shape, if one is malformed.
    """
    grouped: dict[object, list[tuple[int, Row]]] = {}
    for index, shape in enumerate(data["shapes"]):
        if not isinstance(shape, Mapping):
            raise ValueError(f"shape {index} wants a mapping, got {shape!r}")
        group = shape.get("group_id")
        key = ("shape", index) if group is None else ("group", str(group))
        grouped.setdefault(key, []).append((index, shape))
    objects = []
    for members in grouped.values():
        try:
            objects.append(LabelmeObject([shape for _, shape in members], image_hw))
        except KeyError as error:
            raise ValueError(f"shape {members[0][0]}: there is no {error}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"shape {members[0][0]}: {error}") from error
    return objects


def _along(points: Sequence[Xy]) -> list[Xy]:
    """Places on a line at equal distances, both ends among them."""
    corners = np.array(points)
    passed = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))))
    if passed[-1] == 0:
        return list(points[:1])
    wanted = np.linspace(0, passed[-1], LINE_CLICKS)
    xs, ys = (np.interp(wanted, passed, corners[:, axis]).tolist() for axis in (0, 1))
    return list(zip(xs, ys, strict=True))


def _corners(sort: str, points: Sequence[Xy]) -> tuple[Xy, Xy]:
    if sort == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return (x - radius, y - radius), (x + radius, y + radius)
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys)), (max(xs), max(ys))


def _filled(points: Sequence[Xy], image_hw: Hw) -> NDArray[np.bool_]:
    return rle_to_mask(fill_parts([[np.array(points)]], image_hw))


def _bitmap(shape: Row, points: Sequence[Xy], image_hw: Hw) -> NDArray[np.bool_]:
    """The picture in a shape, whose upper left pixel is at its first point."""
    try:
        coded = base64.b64decode(shape["mask"], validate=True)
        with open_picture(coded, label="its mask", formats=("PNG",)) as picture:
            values = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, ImageError, TypeError) as error:
        raise ValueError(f"its mask is no PNG in base64: {error}") from error
    canvas = np.zeros(image_hw, bool)
    x, y = (round(value) for value in points[0])
    inside = values[max(-y, 0) : image_hw[0] - y, max(-x, 0) : image_hw[1] - x]
    x, y = max(x, 0), max(y, 0)
    canvas[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return canvas

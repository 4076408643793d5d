"""Any value → what JSON can say: the one conversion, whoever writes or sends it."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pil
from pydantic_core import to_jsonable_python

from sam2_blocks.values import Image

POLYGON_TOLERANCE_PX = 0.5
"""How far the polygons in our JSON may be from the mask's outline; its RLE is exact."""


@dataclass(frozen=True)
class DumpOptions:
    """How values are written as plain data.

    Attributes:
        rle: write masks as COCO RLE, exactly.
        polygons: write masks as polygons, too.
        tolerance_px: how far these may be from the mask's outline, pixels.
    """

    rle: bool = True
    polygons: bool = True
    tolerance_px: float = POLYGON_TOLERANCE_PX


def to_plain(
    value: Any, options: DumpOptions | None = None, *, odd: Callable[[Any], Any] = str
) -> Any:
    """Turn a value into what JSON can say.

    Numpy's numbers and arrays become Python's, paths and dates text, bytes base64; pictures become
    base64 PNG in the form of a request's image, detections rows. Numbers that are not finite stay,
    as JSON's writers make null of them.

    Args:
        value: anything.
        options: how masks are written.
        odd: makes something of a value of any other type; its text if not given.
    """
    options = options or DumpOptions()
    if value is None or isinstance(value, bool | int | float | str):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Image):
        return {"type": "base64", "value": to_png(value)}
    if _is_detections(value):
        from sam2_blocks.formats.rows import detections_to_rows

        return detections_to_rows(value, options)
    if isinstance(value, np.ndarray | np.generic):
        return _numpy_to_plain(value, options, odd)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, options, odd=odd) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [to_plain(item, options, odd=odd) for item in value]
    return to_jsonable_python(value, inf_nan_mode="constants", fallback=odd)


def to_png(image: Image) -> str:
    """Write a picture as base64 PNG."""
    stream = io.BytesIO()
    Pil.fromarray(image.pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _numpy_to_plain(
    value: np.ndarray[Any, Any] | np.generic, options: DumpOptions, odd: Callable[[Any], Any]
) -> Any:
    made = value.tolist()
    if value.dtype.kind in "biufU":
        return made
    return odd(made) if isinstance(made, np.generic) else to_plain(made, options, odd=odd)


def _is_detections(value: Any) -> bool:
    """Whether it is `supervision.Detections`, which takes a second to import."""
    detections = getattr(sys.modules.get("supervision"), "Detections", None)
    return detections is not None and isinstance(value, detections)

"""Any value → what JSON can say: the one conversion, whoever writes or sends it."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
from PIL import Image as Pil
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from sam2_blocks.values import Image

POLYGON_TOLERANCE_PX = 0.5
"""How far the polygons in our JSON may be from the mask's outline; its RLE is exact."""

FINER_THAN_PYTHON = ("ns", "ps", "fs", "as")
"""Units of numpy's times of which Python makes bare numbers."""


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

    Numpy's numbers and arrays become Python's, and so do tensors; paths and dates text, bytes
    base64; dataclasses and models mappings of their fields, members of an `Enum` their values;
    pictures become base64 PNG in the form of a request's image, detections rows. Numbers that are
    not finite stay, as JSON's writers make null of them; what UTF-8 cannot say is escaped.

    Args:
        value: anything.
        options: how masks are written.
        odd: makes something of a value of any other type; its text if not given.

    Raises:
        ValueError: if a value holds itself, or values in values without end.
    """
    try:
        return _to_plain(value, options or DumpOptions(), odd)
    except RecursionError:
        raise ValueError("a value that holds itself, or is nested too deeply") from None


def _to_plain(value: Any, options: DumpOptions, odd: Callable[[Any], Any]) -> Any:
    if isinstance(value, Enum):
        return _to_plain(value.value, options, odd)
    if isinstance(value, str):
        return _sayable(value)
    if value is None or isinstance(value, bool | int | float):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Image):
        return {"type": "base64", "value": to_png(value)}
    if _is_detections(value):
        from sam2_blocks.formats.rows import detections_to_rows

        return detections_to_rows(value, options)
    if isinstance(value, np.ndarray | np.generic):
        return _numpy_to_plain(value, options, odd)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    parts = _fields_of(value)
    if parts is not None:
        return {_key(key): _to_plain(item, options, odd) for key, item in parts.items()}
    if hasattr(value, "__array__"):  # a tensor
        return _numpy_to_plain(np.asarray(value), options, odd)
    if isinstance(value, Iterable):
        return [_to_plain(item, options, odd) for item in value]
    made = to_jsonable_python(value, inf_nan_mode="constants", fallback=odd)
    return _sayable(made) if isinstance(made, str) else made


def _fields_of(value: Any) -> Mapping[Any, Any] | None:
    """What a mapping, a dataclass or a model holds by name."""
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(value) if isinstance(value, BaseModel) else None


def _key(key: Any) -> str:
    return _sayable(str(key.value if isinstance(key, Enum) else key))


def _sayable(text: str) -> str:
    """The same as a plain `str`; what UTF-8 cannot say, halves of characters, as escapes."""
    if isinstance(text, np.generic):
        text = text.item()
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def to_png(image: Image) -> str:
    """Write a picture as base64 PNG."""
    stream = io.BytesIO()
    Pil.fromarray(image.pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _numpy_to_plain(
    value: np.ndarray[Any, Any] | np.generic, options: DumpOptions, odd: Callable[[Any], Any]
) -> Any:
    kind = value.dtype.kind
    if kind == "f" and value.dtype.itemsize > 8:  # long doubles, which Python has not
        value = value.astype(np.float64)
    elif kind in "mM" and np.datetime_data(value.dtype)[0] in FINER_THAN_PYTHON:
        value = value.astype(f"{kind}8[us]")
    made = value.tolist()
    if kind in "biuf":
        return made
    return odd(made) if isinstance(made, np.generic) else _to_plain(made, options, odd)


def _is_detections(value: Any) -> bool:
    """Whether it is `supervision.Detections`, which takes a second to import."""
    detections = getattr(sys.modules.get("supervision"), "Detections", None)
    return detections is not None and isinstance(value, detections)

"""Pictures and items that a Python program has in its hands → items."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.images import array_to_image, pil_to_rgb, read_image
from sam2_blocks.values import UNNAMED, Image


class Values:
    """Values as items: pictures of any form, mappings of pipeline inputs, or items.

    Paths are called by themselves, pictures by their names, and what has none by its number.

    Args:
        values: taken one by one, when their turn comes.
        request: what they are for.
        alone: whether there is one, which was given itself.
    """

    identity = None
    notes = ()

    def __init__(self, values: Iterable[Any], request: RunRequest, *, alone: bool = False) -> None:
        self.alone = alone
        self.total = len(values) if isinstance(values, list | tuple) else None
        self._values = values
        self._request = request

    def items(self) -> Iterator[Item]:
        """Take the values one by one; a generator gives them once."""
        for number, value in enumerate(self._values):
            yield self._item(number, value)

    def _item(self, number: int, value: Any) -> Item:
        if isinstance(value, Item):
            return value
        if isinstance(value, Mapping):
            return Item(str(number), value)
        name, read = _picture(number, value, self._request)
        source = str(value) if isinstance(value, str | Path) else ""
        return Item(name, {self._request.image_input: read}, source=source)


def is_picture(value: object) -> bool:
    """Whether a value is one picture."""
    return isinstance(value, str | Path | Image | np.ndarray | Pil.Image)


def _picture(number: int, value: Any, request: RunRequest) -> tuple[str, Any]:
    """An item's id, and its picture or what reads it."""
    if isinstance(value, str | Path):
        name = Path(value).as_posix()
        read = functools.partial(
            read_image,
            value,
            image_id=name,
            max_pixels=request.max_pixels,
            value_range=request.value_range,
        )
        return name, read
    name = str(number)
    if isinstance(value, Image):
        named = replace(value, id=name) if value.id == UNNAMED else value
        return named.id, named
    if isinstance(value, np.ndarray):
        return name, functools.partial(array_to_image, value, name)
    if isinstance(value, Pil.Image):
        return name, lambda: Image(pil_to_rgb(value), name)
    raise UsageError(
        f"input {number}: wants a path, an Image, an RGB array, a Pillow picture, a mapping of "
        f"pipeline inputs or an Item, got {type(value).__name__}."
    )

"""``export/masks@v1``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.formats.mask_pictures import cutout_png, indexed_png, mask_png
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_area
from sam2_blocks.values import Image, Rle


class ExportMasksItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    form: Literal["indexed", "objects", "cutouts"]
    values: Literal["object", "class", "track"]
    padding: int


class ExportMasks:
    """Write PNG files, one a picture or one an object."""

    def __init__(self, resources: Resources) -> None:
        self._files = FilePerPicture(resources.files)

    def run(self, items: Sequence[ExportMasksItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._write_or_error(item) for item in items]

    def _write_or_error(self, item: ExportMasksItem) -> Mapping[str, Any] | Exception:
        try:
            files = _files_of(item)
            return {"paths": [self._files.put(item.image, *file) for file in files]}
        except (OSError, ValueError) as error:
            return error


def _files_of(item: ExportMasksItem) -> Iterator[tuple[str, bytes]]:
    """Templates of paths, each with what goes there."""
    rles = to_rles(item.predictions, item.image.hw)
    if item.form == "indexed":
        yield item.path, indexed_png(rles, _numbers(item, len(rles)), item.image.hw)
        return
    path = PurePosixPath(item.path)
    names = _track_ids(item, len(rles)) if item.values == "track" else range(len(rles))
    for name, rle in zip(names, rles, strict=True):
        if rle_area(rle):
            template = path.with_name(f"{path.stem}_{name}{path.suffix}")
            yield str(template), _picture(item, rle)


def _picture(item: ExportMasksItem, rle: Rle) -> bytes:
    if item.form == "objects":
        return mask_png(rle)
    return cutout_png(item.image, rle, padding_px=item.padding)


def _numbers(item: ExportMasksItem, count: int) -> list[int]:
    if item.values == "object":
        return list(range(1, count + 1))
    if item.values == "track":
        return _track_ids(item, count)
    ids = item.predictions.class_id
    return [1] * count if ids is None else [int(class_id) + 1 for class_id in ids]


def _track_ids(item: ExportMasksItem, count: int) -> list[int]:
    ids = item.predictions.tracker_id
    if ids is None and count:
        raise ValueError(
            "values: track wants detections with tracker_id; make them with sam2/track"
        )
    return [] if ids is None else [int(key) for key in ids]

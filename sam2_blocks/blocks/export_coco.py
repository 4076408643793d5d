"""``export/coco@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

import supervision as sv
from pycocotools import mask as coco_mask

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.coco import CocoWriter
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_to_coco
from sam2_blocks.values import Image


class ExportCocoItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    segmentation: Literal["rle", "polygons"]
    tolerance: float


class ExportCoco:
    """Collect annotations of all pictures and write each COCO file once, when the run ends."""

    def __init__(self, resources: Resources) -> None:
        self._outputs = resources.files
        self._files: dict[Path, CocoWriter] = {}

    def run(self, items: Sequence[ExportCocoItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._add_or_error(item) for item in items]

    def finish(self) -> None:
        """Write the files; also after an interruption, with the pictures done until then."""
        with ExitStack() as stack:  # each file gets its turn, whatever becomes of another one
            for file in self._files.values():
                stack.callback(file.finish)
            for path in self._outputs.claim_left(self):  # no picture of this run was for them
                stack.callback(self._open(path).finish)
        self._files.clear()

    def _add_or_error(self, item: ExportCocoItem) -> Mapping[str, Any] | Exception:
        picture = _picture(item)
        try:
            path = self._outputs.claim(item.path, self)
            self._open(path).add(item.image.id, picture)
        except (OSError, ValueError, UsageError) as error:
            return error
        return {"annotations": picture["annotations"]}

    def _open(self, path: Path) -> CocoWriter:
        if path not in self._files:
            self._files[path] = CocoWriter(path, kept=self._outputs.kept_in(path))
        return self._files[path]


def _picture(item: ExportCocoItem) -> dict[str, Any]:
    height, width = item.image.hw
    annotations = [_annotation(item, index) for index in range(len(item.predictions))]
    return {"width": width, "height": height, "annotations": annotations}


def _annotation(item: ExportCocoItem, index: int) -> dict[str, Any]:
    found = item.predictions
    rle = coco_to_rle(found.data["rle_mask"][index])
    names = found.data.get("class_name")
    row: dict[str, Any] = {
        "category": "object" if names is None else str(names[index]),
        "class_id": None if found.class_id is None else int(found.class_id[index]),
        "bbox": coco_mask.toBbox(rle_to_coco(rle)).tolist(),
        "area": int(rle_area(rle)),
        "iscrowd": 0,
    }
    if found.confidence is not None:
        row["score"] = float(found.confidence[index])
    if item.segmentation == "rle" or row["area"] == 0:  # nothing has no outline
        row["segmentation"] = rle_to_coco(rle)
    else:
        traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=item.tolerance)
        row["segmentation"] = [ring.ravel().tolist() for ring in traced.outer]
    return row

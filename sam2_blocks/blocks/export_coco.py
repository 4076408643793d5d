"""``export/coco@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.coco import CocoWriter, Outlines, detections_to_annotations
from sam2_blocks.formats.coco_boxes import SOURCE
from sam2_blocks.values import Image


class ExportCocoItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str
    segmentation: Literal["rle", "polygons"]
    outlines: Outlines
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
        try:
            picture = _picture(item)
            path = self._outputs.claim(item.path, self)
            source = item.predictions.metadata.get(SOURCE, {})
            self._open(path).add(item.image.id, picture, source.get("categories", ()))
        except (OSError, ValueError, UsageError) as error:
            return error
        return {"annotations": picture["annotations"]}

    def _open(self, path: Path) -> CocoWriter:
        if path not in self._files:
            kept = self._outputs.kept_in(path)
            self._files[path] = CocoWriter(path, kept=kept, order=self._outputs.order)
        return self._files[path]


def _picture(item: ExportCocoItem) -> dict[str, Any]:
    height, width = item.image.hw
    frame = item.image.video
    video = {"video": frame.video_id, "frame_index": frame.index} if frame else {}
    annotations = detections_to_annotations(
        _seen(item.predictions),
        item.image.hw,
        segmentation=item.segmentation,
        outlines=item.outlines,
        tolerance_px=item.tolerance,
    )
    source = item.predictions.metadata.get(SOURCE)
    identity = {"id": source["image_id"]} if source else {}
    size = {"width": width, "height": height}
    return {**size, **identity, **video, "annotations": annotations}


def _seen(found: sv.Detections) -> sv.Detections:
    """Leave out tracks that are lost; their masks are empty."""
    states = found.data.get("track_state")
    return found if states is None else found.select(np.asarray(states) != "lost")

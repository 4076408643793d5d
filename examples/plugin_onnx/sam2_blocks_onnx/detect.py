"""``onnx/detect@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import supervision as sv

from sam2_blocks import Image, ModelError, Resources
from sam2_blocks.executors import FoundObjects
from sam2_blocks.strategies.detect import TileSettings, choose_objects, detect_in_tiles
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks_onnx import FAMILY
from sam2_blocks_onnx.layouts import NEEDS_NMS, Found, Reader, reader_of
from sam2_blocks_onnx.model import Arrays
from sam2_blocks_onnx.scaling import Scaling, scaling_of, to_input

MOST_BOXES = 30_000  # that NMS looks at, the most certain


class DetectItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    model: str
    layout: str
    class_names: list[str] | None
    scores: str
    resize: str
    normalize: str
    threshold: float
    nms_iou: float
    classes: list[str] | None
    max_count: int
    size_px: int
    tile_px: int
    overlap: float
    device: str


@runtime_checkable
class RunsPictures(Protocol):
    """What this block needs of a model; `sam2_blocks_onnx.model.OnnxModel` has it."""

    spec: Any
    class_names: tuple[str, ...]
    metadata: Mapping[str, Any]

    def input_hw(self, size_px: int) -> tuple[int, int]:
        """Height and width of the input."""
        ...

    def run(self, batch: Any) -> Arrays:
        """Run the network on pictures."""
        ...


class Detect:
    """Find objects; pictures that are asked the same are one batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._readers: dict[tuple[Any, ...], Reader] = {}

    def run(self, items: Sequence[DetectItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        found = map_groups(items, _asked, self._find)
        return [{"detections": of_item} for of_item in found]

    def _find(self, _: str, items: Sequence[DetectItem]) -> list[sv.Detections]:
        asked = items[0]
        model = self._resources.model(asked.model, RunsPictures, family=FAMILY, device=asked.device)
        reader = self._reader(model, asked, model.input_hw(asked.size_px))
        _check_classes(asked, reader)
        found = detect_in_tiles(
            lambda views: _look(views, model, reader, asked),
            [item.image for item in items],
            TileSettings(asked.tile_px, asked.overlap),
        )
        return [_to_detections(choose_objects(of, max_count=asked.max_count)) for of in found]

    def _reader(self, model: RunsPictures, asked: DetectItem, input_hw: tuple[int, int]) -> Reader:
        """Return what reads the outputs; whether they are as declared is found out once."""
        names = tuple(asked.class_names or ())
        key = (asked.model, asked.layout, asked.scores, names, input_hw)
        if key not in self._readers:
            self._readers[key] = _checked_reader(model, asked, input_hw)
        return self._readers[key]


def _asked(item: Any) -> str:
    """All that an item asks, but its picture."""
    return repr({name: value for name, value in vars(item).items() if name != "image"})


def _checked_reader(model: RunsPictures, asked: DetectItem, input_hw: tuple[int, int]) -> Reader:
    """Run the model once on grey, and see whether its outputs are what was declared."""
    try:
        outputs = model.run(np.full((1, 3, *input_hw), 0.5, np.float32))
    except Exception as error:  # its errors have no common class
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{asked.model!r} does not run on a picture of {input_hw[1]} x {input_hw[0]}: {reason}"
        ) from error
    args = model.metadata.get("args")
    has_nms = isinstance(args, dict) and bool(args.get("nms"))
    try:
        return reader_of(
            {name: array.shape for name, array in outputs.items()},
            layout=asked.layout,
            scores=asked.scores,
            class_names=tuple(asked.class_names or ()) or model.class_names,
            task=str(model.metadata.get("task", "detect")),
            has_nms=has_nms or model.metadata.get("end2end") is True,
        )
    except ValueError as error:
        raise ModelError(f"{asked.model!r}: {error}") from error


def _check_classes(asked: DetectItem, reader: Reader) -> None:
    for name in asked.classes or ():
        if name not in reader.class_names:
            near = get_close_matches(name, reader.class_names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if not reader.class_names:
                hint = " Its file names no classes; give 'class_names'."
            raise ValueError(f"the model {asked.model!r} knows no class {name!r}.{hint}")


def _look(
    views: Sequence[Image], model: RunsPictures, reader: Reader, asked: DetectItem
) -> list[FoundObjects]:
    """Find objects in pictures, or in tiles of some."""
    input_hw = model.input_hw(asked.size_px)
    resize = reader.resize if asked.resize == "auto" else asked.resize
    normalize = reader.normalize if asked.normalize == "auto" else asked.normalize
    scalings = [scaling_of(view.hw, input_hw, resize) for view in views]
    inputs = [
        to_input(view.pixels, scaling, normalize=normalize)
        for view, scaling in zip(views, scalings, strict=True)
    ]
    read = reader.read(model.run(np.stack(inputs)), input_hw, asked.threshold)
    return [
        _brought_back(_chosen(found, reader, asked), view, scaling, reader)
        for found, view, scaling in zip(read, views, scalings, strict=True)
    ]


def _chosen(found: Found, reader: Reader, asked: DetectItem) -> Found:
    """Keep what was asked for: some classes, each object once, the most certain."""
    rows = np.arange(len(found.scores))
    if asked.classes is not None:
        wanted = [reader.class_names.index(name) for name in asked.classes]
        rows = rows[np.isin(found.class_ids, wanted)]
    if reader.layout in NEEDS_NMS and len(rows):
        rows = rows[:MOST_BOXES]
        boxes = found.boxes_xyxy[rows]
        kept = cv2.dnn.NMSBoxesBatched(
            np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).astype(np.float64),
            found.scores[rows],
            found.class_ids[rows].astype(np.int32),
            0.0,
            asked.nms_iou,
        )
        rows = rows[np.sort(np.asarray(kept, np.int64))]  # they come the most certain first
    return Found(*(column[rows[: asked.max_count]] for column in found))


def _brought_back(found: Found, view: Image, scaling: Scaling, reader: Reader) -> FoundObjects:
    """Bring boxes into the picture; one that lies in the grey around it has no pixels there."""
    boxes = scaling.boxes_back(found.boxes_xyxy.reshape(-1, 4))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    class_ids = found.class_ids[inside].astype(np.int64)
    return FoundObjects(
        image_hw=view.hw,
        boxes_xyxy=boxes[inside].astype(np.float32),
        confidence=found.scores[inside].astype(np.float32),
        class_ids=class_ids,
        class_names=tuple(reader.name_of(class_id) for class_id in class_ids.tolist()),
    )


def _to_detections(found: FoundObjects) -> sv.Detections:
    return sv.Detections(
        xyxy=found.boxes_xyxy,
        confidence=found.confidence,
        class_id=found.class_ids,
        data={"class_name": np.array(found.class_names, np.str_)},
    )

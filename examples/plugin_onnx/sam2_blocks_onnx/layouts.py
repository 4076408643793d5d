"""What the outputs of exported detectors are, and boxes out of them.

============  ====================================================================================
``yolov8``    (B, 4 + C, N): centre, size, a score a class; of YOLOv8, 9, 11, 12 without NMS
``yolov5``    (B, N, 5 + C): centre, size, a score of any object, and one a class; of YOLOv5, 6, 7
``nms``       (B, N, 6): corners, score, class; of YOLOv10 and 26, and of others with NMS inside
``detr``      (B, N, 4), centre and size from 0 to 1, and (B, N, C); or (B, N, 4 + C) in one
``boxes``     (B, N, 4) corners, (B, N) scores, (B, N) labels; of the code of RT-DETR and D-FINE
============  ====================================================================================

All lengths but those of ``detr`` are pixels of the input. N and C are any numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LAYOUTS = ("yolov8", "yolov5", "nms", "detr", "boxes")
NEEDS_NMS = ("yolov8", "yolov5")
BOXES_BESIDES = ("segment", "pose")  # tasks whose outputs have more columns behind the boxes'
MOST_ROWS_OF_NMS = 1000

Shapes = Mapping[str, tuple[int, ...]]


class Found(NamedTuple):
    """What one picture's outputs say: boxes in pixels of the input, scores and class numbers."""

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True)
class Reader:
    """Reads the outputs of one model.

    Attributes:
        layout: one of `LAYOUTS`.
        outputs: names of the outputs it reads, in the order of the table above.
        scores: ``probability``, ``sigmoid`` or ``softmax``.
        class_names: may be fewer than there are classes, or none.
        class_count: scores of classes in a row; None where rows carry the number of their class.
    """

    layout: str
    outputs: tuple[str, ...]
    scores: str
    class_names: tuple[str, ...]
    class_count: int | None

    @property
    def resize(self) -> str:
        """How those who export such models scale pictures."""
        return "stretch" if self.layout in ("detr", "boxes") else "letterbox"

    @property
    def normalize(self) -> str:
        """What those who export such models do to colours."""
        return "imagenet" if len(self.outputs) == 2 else "none"

    def name_of(self, class_id: int) -> str:
        """The name of a class."""
        known = 0 <= class_id < len(self.class_names)
        return self.class_names[class_id] if known else f"class_{class_id}"

    def read(
        self, outputs: Mapping[str, NDArray[Any]], input_hw: tuple[int, int], threshold: float
    ) -> list[Found]:
        """Read the outputs of a batch: of each picture, what is more certain than a threshold."""
        wanted = [np.asarray(outputs[name]) for name in self.outputs]
        pictures = zip(*wanted, strict=True)
        return [self._read_one(list(rows), input_hw, threshold) for rows in pictures]

    def _read_one(
        self, rows: list[NDArray[Any]], input_hw: tuple[int, int], threshold: float
    ) -> Found:
        if self.layout == "boxes":
            found = Found(_float(rows[0]), _float(rows[1]), rows[2].astype(np.int64))
        elif self.layout == "nms":
            table = _float(rows[0])
            found = Found(table[:, :4], table[:, 4], table[:, 5].round().astype(np.int64))
        elif self.layout == "detr":
            found = self._read_queries(rows, input_hw)
        else:
            found = self._read_anchors(rows[0], threshold)
        kept = np.flatnonzero(found.scores > threshold)
        kept = kept[np.argsort(-found.scores[kept], kind="stable")]
        return Found(*(column[kept] for column in found))

    def _read_anchors(self, table: NDArray[Any], threshold: float) -> Found:
        """Read YOLO's rows before NMS; each is of its best class."""
        rows = table.T if self.layout == "yolov8" else table
        first, count = (4 if self.layout == "yolov8" else 5), self.class_count or 0
        if self.layout == "yolov5":
            rows = rows[rows[:, 4] > threshold]
        scores = rows[:, first : first + count]
        class_ids = scores.argmax(axis=1)
        best = np.take_along_axis(scores, class_ids[:, None], axis=1)[:, 0]
        if self.layout == "yolov5":
            best = best * rows[:, 4]
        kept = np.flatnonzero(best > threshold)
        return Found(corners(_float(rows[kept, :4])), _float(best[kept]), class_ids[kept])

    def _read_queries(self, rows: list[NDArray[Any]], input_hw: tuple[int, int]) -> Found:
        if len(rows) == 1:
            rows = [rows[0][:, :4], rows[0][:, 4:]]
        height, width = input_hw
        boxes = corners(_float(rows[0])) * np.array([width, height] * 2, np.float32)
        scores = _probabilities(_float(rows[1]), self.scores)
        if self.scores != "sigmoid":
            class_ids = scores.argmax(axis=1)
            return Found(boxes, scores[np.arange(len(scores)), class_ids], class_ids)
        # A box may be of several classes; as many answers as boxes, the most certain.
        best = np.argsort(-scores, axis=None, kind="stable")[: len(boxes)]
        queries, class_ids = np.unravel_index(best, scores.shape)
        return Found(boxes[queries], scores.ravel()[best], class_ids.astype(np.int64))


def corners(boxes_cxcywh: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn boxes of centre and size into boxes of two corners."""
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:4] / 2
    return np.hstack([centre - half, centre + half])


def reader_of(
    shapes: Shapes,
    *,
    layout: str = "auto",
    scores: str = "auto",
    class_names: tuple[str, ...] = (),
    task: str = "detect",
    has_nms: bool = False,
) -> Reader:
    """Find out how the outputs of a model are read.

    Args:
        shapes: of the outputs it made of one picture, the 1 of the batch first.
        layout: one of `LAYOUTS`, or ``auto``.
        scores: as in the manifest.
        class_names: the names of its classes, if they are known.
        task: what its exporter says it is for.
        has_nms: whether its exporter says that NMS is inside.

    Raises:
        ValueError: if the outputs are not of the layout, or ``auto`` cannot tell it.
    """
    if task not in ("detect", *BOXES_BESIDES):
        raise ValueError(f"it is exported for the task {task!r}, and its outputs are no boxes.")
    known = len(class_names)
    layout = _guess(shapes, known, has_nms) if layout == "auto" else layout
    outputs = _outputs(layout, shapes)
    if layout in ("nms", "boxes"):
        return Reader(layout, outputs, "probability", class_names, None)
    count = _class_count(layout, outputs, shapes)
    scores = _activation(scores, outputs, count, known)
    named = count - 1 if scores == "softmax" else count
    if known and task in BOXES_BESIDES and named > known:
        named = count = known
    if known and known != named:
        raise ValueError(
            f"layout {layout!r}: outputs {_shown(shapes)} have scores of {named} classes, and "
            f"there are {known} class names. Give 'class_names' of all, in their order."
        )
    return Reader(layout, outputs, scores, class_names, count)


def _guess(shapes: Shapes, known: int, has_nms: bool) -> str:
    """Tell a layout by shapes."""
    if _triple(shapes):
        return "boxes"
    if _pair(shapes):
        return "detr"
    tables = [shape for shape in shapes.values() if len(shape) == 3]
    if len(tables) != 1:
        raise ValueError(_unclear(shapes))
    rows, columns = tables[0][1:]
    if has_nms:
        return "nms"
    fits = {
        "yolov8": rows < columns and rows > 4 and (not known or rows >= 4 + known),
        "yolov5": rows > MOST_ROWS_OF_NMS and columns > 5 and (not known or columns == 5 + known),
        "nms": rows <= MOST_ROWS_OF_NMS and columns == 6,
        "detr": rows <= MOST_ROWS_OF_NMS and rows > columns and known and columns == 4 + known,
    }
    possible = [layout for layout, may_be in fits.items() if may_be]
    if len(possible) != 1:
        raise ValueError(_unclear(shapes))
    return possible[0]


def _unclear(shapes: Shapes) -> str:
    return (
        f"outputs {_shown(shapes)} do not say what they are. Give 'layout', one of "
        f"{', '.join(LAYOUTS)}; `sam2-blocks blocks show onnx/detect@v1` describes them."
    )


def _outputs(layout: str, shapes: Shapes) -> tuple[str, ...]:
    """Names of the outputs that a layout reads."""
    found: tuple[str, ...] = ()
    if layout == "boxes":
        found = _triple(shapes)
    elif layout == "detr":
        found = _pair(shapes)
    if not found and layout != "boxes":
        tables = [name for name, shape in shapes.items() if len(shape) == 3]
        found = tuple(tables[:1])
    if not found:
        raise ValueError(f"layout {layout!r} does not fit outputs {_shown(shapes)}.")
    return found


def _triple(shapes: Shapes) -> tuple[str, ...]:
    """Boxes, scores and labels, by their shapes; labels by their name, or as the integers."""
    boxes = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    if len(boxes) != 1:
        return ()
    rows = [name for name, shape in shapes.items() if shape == shapes[boxes[0]][:2]]
    labels = [name for name in rows if "label" in name.lower() or "class" in name.lower()]
    if len(rows) != 2 or len(labels) != 1:
        return ()
    return boxes[0], next(name for name in rows if name not in labels), labels[0]


def _pair(shapes: Shapes) -> tuple[str, ...]:
    """Boxes and logits, by their shapes; of two with four columns, boxes are called so."""
    tables = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    boxes = [name for name, shape in tables.items() if shape[2] == 4]
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name.lower() or "det" in name.lower()]
    if len(boxes) != 1:
        return ()
    of_queries = [n for n, s in tables.items() if n not in boxes and s[1] == tables[boxes[0]][1]]
    if len(of_queries) > 1:  # hidden states beside them
        of_queries = [n for n in of_queries if "logit" in n.lower() or "label" in n.lower()]
    return (boxes[0], of_queries[0]) if len(of_queries) == 1 else ()


def _class_count(layout: str, outputs: tuple[str, ...], shapes: Shapes) -> int:
    first = shapes[outputs[0]]
    counts = {"yolov8": first[1] - 4, "yolov5": first[2] - 5, "detr": first[2] - 4}
    count = shapes[outputs[1]][2] if len(outputs) == 2 else counts[layout]
    if count < 1 or (layout == "yolov8" and first[1] > first[2]):
        raise ValueError(f"layout {layout!r} does not fit outputs {_shown(shapes)}.")
    return count


def _activation(scores: str, outputs: tuple[str, ...], count: int, known: int) -> str:
    if len(outputs) == 1 or scores != "auto":
        return "probability" if scores == "auto" else scores
    return "softmax" if known and count == known + 1 else "sigmoid"


def _probabilities(logits: NDArray[np.float32], scores: str) -> NDArray[np.float32]:
    """Scores of classes, without that of no object."""
    if scores == "probability":
        return logits
    if scores == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits.clip(-80, 80))), np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, :-1], np.float32)


def _float(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(array, np.float32)


def _shown(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "(none)"

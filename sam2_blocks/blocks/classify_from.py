"""``detections/classify_from@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import did_you_mean


class ClassifyFromItem(Protocol):
    """One picture; see the manifest."""

    detections: sv.Detections
    classes: list[Any]
    min_confidence: float
    class_names: list[str] | None


class ClassifyFrom:
    """Carry the classes of crops into their detections."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[ClassifyFromItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [_classify_or_error(item) for item in items]


class _Class(NamedTuple):
    """A class that was found; without id or confidence those of the detection stay."""

    name: str
    id: int | None = None
    confidence: float | None = None


def _classify_or_error(item: ClassifyFromItem) -> Mapping[str, Any] | Exception:
    found = item.detections
    if len(found) != len(item.classes):
        return ValueError(
            f"detections and classes belong together one by one; got {len(found)} and "
            f"{len(item.classes)}. Wire the detections that image/crop gives."
        )
    try:
        classes = [_class_of(one, item) for one in item.classes]
    except ValueError as error:
        return error
    return {"detections": _with_classes(found, classes)}


def _class_of(found: Any, item: ClassifyFromItem) -> _Class | None:
    if isinstance(found, str):
        return _Class(found, _place(found, item.class_names))
    sure = np.ones(len(found)) if found.confidence is None else np.asarray(found.confidence)
    if not len(found) or sure.max() < item.min_confidence:
        return None
    best = int(sure.argmax())
    id_ = None if found.class_id is None else int(found.class_id[best])
    names = found.data.get("class_name")
    name = f"class_{id_}" if names is None else str(names[best])
    return _Class(name, id_, None if found.confidence is None else float(sure[best]))


def _place(name: str, names: Sequence[str] | None) -> int | None:
    if names is None:
        return None
    if name not in names:
        raise ValueError(f"class_names has no {name!r}.{did_you_mean(name, names)}")
    return names.index(name)


def _with_classes(found: sv.Detections, classes: Sequence[_Class | None]) -> sv.Detections:
    names = [str(name) for name in found.data.get("class_name", ["object"] * len(found))]
    ids = np.zeros(len(found), np.int64) if found.class_id is None else np.array(found.class_id)
    sure = np.ones(len(found), np.float32)
    sure = sure if found.confidence is None else np.array(found.confidence)
    for row, one in enumerate(classes):
        if one is None:
            continue
        names[row] = one.name
        ids[row] = ids[row] if one.id is None else one.id
        sure[row] = sure[row] if one.confidence is None else one.confidence
    told = any(one is not None and one.confidence is not None for one in classes)
    confidence = sure if told or found.confidence is not None else None
    data = {**found.data, "class_name": np.array(names, np.str_)}
    return replace(found, class_id=ids, confidence=confidence, data=data)

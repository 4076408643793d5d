"""Detections of several detectors as one: what they found alike stays once.

Classes are compared by name, since detectors number them in their own ways. What has no confidence
counts as certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.masks.boxes import box_ious, suppress_boxes
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import Float32Array, Int64Array

SOURCE_COLUMN = "source"
"""Which of the merged detections a row is from, counted from 0."""
CERTAIN = np.float32(1)
"""The confidence of a box that has none: somebody drew it."""
NO_TRACK = np.int64(-1)
"""The id of what is not followed, as trackers write it."""


def concatenate_detections(parts: Sequence[sv.Detections]) -> sv.Detections:
    """Put the rows of several detections of one picture below each other.

    Args:
        parts: one or more; without names of classes, these are ``class_7`` and so on.

    Returns:
        All rows, in order. Numbers of classes stay if no two detections contradict each other;
        else names are numbered in the order in which they come. Where only some parts have
        confidences or ids of tracks, rows of the others get 1.0 and -1 (not followed). Masks and
        further columns are there if all parts with rows have them.

    Raises:
        ValueError: if masks have different sizes.
    """
    names = np.concatenate([class_names(part) for part in parts])
    given = [part for part in parts if len(part)]
    sources = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    columns = set.intersection(*(set(part.data) for part in given)) if given else set()
    data: dict[str, Any] = {
        name: np.concatenate([np.asarray(part.data[name]) for part in given])
        for name in sorted(columns)
    }
    return sv.Detections(
        xyxy=np.concatenate([part.xyxy for part in parts]).astype(np.float32).reshape(-1, 4),
        mask=_masks(given),
        confidence=_filled([part.confidence for part in given], given, CERTAIN),
        class_id=_class_ids(given, names),
        tracker_id=_filled([part.tracker_id for part in given], given, NO_TRACK),
        data={**data, "class_name": names, SOURCE_COLUMN: sources},
    )


def suppress_detections(
    found: sv.Detections, *, iou: float, class_agnostic: bool = False
) -> sv.Detections:
    """Of detections whose boxes overlap more than this, keep the most certain; the order stays.

    Args:
        found: those without a confidence count as certain.
        iou: from 0 to 1; 1 keeps all.
        class_agnostic: whether those of different classes go, too.
    """
    groups = np.zeros(len(found), int) if class_agnostic else _groups(class_names(found))
    kept = [
        rows[suppress_boxes(_boxes(found)[rows], confidence_of(found)[rows], iou_threshold=iou)]
        for group in np.unique(groups)
        for rows in [np.flatnonzero(groups == group)]
    ]
    return found.select(np.sort(np.concatenate([np.zeros(0, np.int64), *kept])))


def average_detections(found: sv.Detections, *, iou: float, count: int) -> sv.Detections:
    """Make one box of those of a class that overlap, their mean weighted by confidence.

    Args:
        found: what `concatenate_detections` made, without masks.
        iou: a box joins the first group whose mean box it overlaps more than this.
        count: how many detectors there were; what fewer of them found is less certain.

    Returns:
        One row a group with the fields of its most certain box, the most certain group first.

    Raises:
        ValueError: if there are masks.

    Source: weighted boxes fusion, https://arxiv.org/abs/1910.13302.
    """
    if found.mask is not None:
        raise ValueError("boxes can be averaged, masks cannot. Use method: nms, or merge boxes.")
    boxes, confidence, groups = _boxes(found), confidence_of(found), _groups(class_names(found))
    firsts: list[int] = []
    members: list[list[int]] = []
    means = np.zeros((0, 4), np.float32)
    for row in np.argsort(-confidence, kind="stable"):
        same = np.array([groups[first] == groups[row] for first in firsts], bool)
        overlaps = np.where(same, box_ious(boxes[row][None], means)[0], 0)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] <= iou:
            firsts.append(int(row))
            members.append([int(row)])
            means = np.concatenate([means, boxes[row][None]])
            continue
        members[best].append(int(row))
        means[best] = _mean(boxes[members[best]], confidence[members[best]])
    sources = np.asarray(found.data[SOURCE_COLUMN])
    agreed = [len(np.unique(sources[rows])) / count for rows in members]
    scores = [confidence[rows].mean() * share for rows, share in zip(members, agreed, strict=True)]
    made = found.select(np.array(firsts, np.int64))
    made.xyxy = means
    made.confidence = np.array(scores, np.float32)
    return made.select(np.argsort(-made.confidence, kind="stable"))


def class_names(found: sv.Detections) -> NDArray[np.str_]:
    """The names of the classes, or what stands for them where there are numbers or nothing."""
    names = found.data.get("class_name")
    if names is None:
        ids = found.class_id
        names = ["object"] * len(found) if ids is None else [f"class_{number}" for number in ids]
    return np.array(names, np.str_)


def confidence_of(found: sv.Detections) -> Float32Array:
    """The confidence of each row; boxes that were drawn by hand have none and count as certain."""
    if found.confidence is None:
        return np.full(len(found), CERTAIN)
    return found.confidence.astype(np.float32)


def _mean(boxes: Float32Array, weights: Float32Array) -> Float32Array:
    weights = weights if weights.any() else np.ones_like(weights)
    return np.average(boxes, axis=0, weights=weights).astype(np.float32)


def _boxes(found: sv.Detections) -> Float32Array:
    return found.xyxy.astype(np.float32).reshape(-1, 4)


def _groups(names: NDArray[np.str_]) -> Int64Array:
    groups: Int64Array = np.unique(names, return_inverse=True)[1].reshape(-1)
    return groups


def _column(parts: Sequence[NDArray[Any] | None], dtype: Any) -> NDArray[Any] | None:
    given = [part for part in parts if part is not None]
    if not given or len(given) < len(parts):
        return None
    return np.concatenate(given).astype(dtype)


def _filled(
    columns: Sequence[NDArray[Any] | None], given: Sequence[sv.Detections], nothing: np.generic
) -> NDArray[Any] | None:
    """The columns below each other; one that is missing is filled, if not all are."""
    if all(column is None for column in columns):
        return None
    full = [
        np.full(len(part), nothing) if column is None else column
        for column, part in zip(columns, given, strict=True)
    ]
    return np.concatenate(full).astype(nothing.dtype)


def _masks(given: Sequence[sv.Detections]) -> MaskStack | None:
    if not given or any(part.mask is None for part in given):
        return None
    rles = [rle for part in given for rle in to_rles(part)]
    return MaskStack.from_rles(rles, rles[0].size)


def _class_ids(given: Sequence[sv.Detections], names: NDArray[np.str_]) -> Int64Array:
    """The numbers of the classes, or new ones where detectors contradict each other."""
    ids = _column([part.class_id for part in given], np.int64)
    if ids is not None:
        pairs = set(zip(names.tolist(), ids.tolist(), strict=True))
        if len({name for name, _ in pairs}) == len({number for _, number in pairs}) == len(pairs):
            return ids
    order = list(dict.fromkeys(names.tolist()))
    return np.array([order.index(name) for name in names.tolist()], np.int64)

"""Predictions as `supervision.Detections`: one prompt, one detection, whose mask is in one place.

``mask`` is the truth. Run lengths are made of it with `to_rles` when something is written or sent,
so that whatever moved, cut or changed the mask meanwhile is in them. Predictions of others that
have their masks only as ``data["rle_mask"]`` are taken in with `settle_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.rle import coco_to_rle, rle_area
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.values import AutomaticMasks, Hw, MaskPrediction, PromptSet, Rle, Tracks

RLE_COLUMN = "rle_mask"
"""Where other engines put COCO run lengths; nothing of ours leaves with it."""

_STALE_FIELDS = ("polygon", RLE_COLUMN)
"""Fields that draw the shape of the prompting detection and would be taken for ours."""


def to_detections(
    prediction: MaskPrediction | AutomaticMasks,
    *,
    prompting: sv.Detections | None = None,
    prompts: PromptSet | None = None,
    image_id: str = "",
    class_name: str = "object",
    drop_empty: bool = False,
    class_numbers: dict[str, int] | None = None,
) -> sv.Detections:
    """Turn the masks of one image into detections, in the order of the prompts.

    ``xyxy`` is the tight box of the mask in inclusive pixel indices; an empty mask has zeros. Every
    field of the prompting detections is carried over. These fields of ``data`` are ours:

    - ``class_name``: the detector's, or the prompt's; else ``class_name``, or ``class_7`` where it
      gave only ids. Names without an id are numbered as they come.
    - ``detection_id``: a UUID made of the picture's name, the row and its mask: equal runs give
      equal ids.
    - ``parent_id``: ``image_id``, the picture that it lies in.
    - ``prompt_detection_id``: the detector's ``detection_id``, or nothing.
    - ``prompt_index``: number of the prompt, so that rows can be matched after filtering, and
      boxes or points found again, which would be stale once masks are moved.
    - ``prompt_error``: why a prompt was skipped, for callers that skip some; else empty.
    - ``iou_prediction``: the model's estimate of the mask's quality, 0 to 1. ``confidence`` is the
      detector's, or this estimate where there was no detector.
    - ``stability_score``: of masks found without prompts, see `AutomaticMasks`; else NaN.

    They are always there, so that detections of any origin can be merged.

    Args:
        prediction: the masks. Of those found without prompts, the grid's points that led to them
            count as the prompts.
        prompting: the detections whose boxes were the prompts, one row a mask.
        prompts: the prompts, where there were no detections.
        image_id: name of the image.
        class_name: the class where no detector named one.
        drop_empty: leave out masks without a single pixel.
        class_numbers: the numbers of names in the pictures before, which are kept; new names are
            added to it.

    Returns:
        Detections with a `MaskStack`; without masks, all fields are there with length 0.

    Raises:
        TypeError: if ``prediction`` is nothing of this kind.
        ValueError: if ``prompting`` or ``prompts`` has not one row for each mask.

    Example:
        >>> import numpy as np
        >>> masks = np.zeros((1, 20, 30), bool)
        >>> masks[0, 5:10, 8:12] = True
        >>> to_detections(masks_to_prediction(masks), class_name="cup").xyxy.tolist()
        [[8.0, 5.0, 11.0, 9.0]]
    """
    stability_score = None
    if isinstance(prediction, AutomaticMasks):
        stability_score = prediction.stability_score
        if prompting is None and prompts is None:
            prompts = PromptSet.from_points(prediction.point_xy)
        prediction = prediction.prediction
    count = _count_rows(prediction, prompting=prompting, prompts=prompts)
    source = prompting if prompting is not None else sv.Detections(np.zeros((count, 4), np.float32))
    names = _class_names(source, class_name, prompts if prompting is None else None)
    stack = MaskStack.from_rles(prediction.rles, prediction.image_hw)
    detections = sv.Detections(
        xyxy=stack.bbox_xyxy.astype(np.float32),
        mask=stack,
        confidence=_column(source.confidence, prediction.iou_prediction),
        class_id=_class_ids(source, names, class_numbers),
        tracker_id=None if source.tracker_id is None else source.tracker_id.copy(),
        data={
            **_carried_over(source),
            "class_name": names,
            "detection_id": _detection_ids(prediction, image_id),
            "parent_id": np.array([image_id] * count, np.str_),
            "prompt_detection_id": _prompt_detection_ids(source),
            "prompt_index": np.arange(count),
            "prompt_error": np.array([""] * count, np.str_),
            "iou_prediction": np.array(prediction.iou_prediction, np.float32),
            "stability_score": _column(stability_score, np.full(count, np.nan)).astype(np.float32),
        },
        metadata=dict(source.metadata),
    )
    if drop_empty:
        return detections.select(np.array([rle_area(rle) > 0 for rle in prediction.rles], bool))
    return detections


def tracks_to_detections(
    tracks: Tracks,
    classes: Mapping[int, tuple[int, str]],
    *,
    image_id: str = "",
    frame_index: int | None = None,
    confidences: Mapping[int, float] = MappingProxyType({}),
) -> sv.Detections:
    """Turn the objects of a frame into detections, one an object, in order.

    Args:
        tracks: the objects.
        classes: class id and name by ``tracker_id``; others are of class 0, ``object``.
        image_id: name of the frame.
        frame_index: its number, where frames share a name; a ``detection_id`` is of one frame.
        confidences: by ``tracker_id``; of others it is ``iou_prediction``.

    Returns:
        As `to_detections` makes them, with ``tracker_id`` and, in ``data``, ``object_score`` and
        ``track_state``.
    """
    keys = tracks.tracker_id.tolist()
    number = "" if frame_index is None else f"#{frame_index}"
    detections = to_detections(tracks.prediction, image_id=f"{image_id}{number}")
    detections.data["parent_id"] = np.array([image_id] * len(tracks), np.str_)
    named = [classes.get(key, (0, "object")) for key in keys]
    own = zip(keys, tracks.prediction.iou_prediction.tolist(), strict=True)
    detections.confidence = np.array([confidences.get(key, iou) for key, iou in own], np.float32)
    detections.tracker_id = tracks.tracker_id.copy()
    detections.class_id = np.array([class_id for class_id, _ in named], np.int64)
    detections.data["class_name"] = np.array([name for _, name in named], np.str_)
    detections.data["object_score"] = tracks.object_score.copy()
    detections.data["track_state"] = np.array(tracks.state, np.str_)
    return detections


def objects_to_detections(found: FoundObjects, *, image_id: str = "") -> sv.Detections:
    """Turn what a detector found in one picture into detections, in its order.

    Args:
        found: boxes, and masks where the detector makes them.
        image_id: name of the picture, which becomes the ``parent_id``.

    Returns:
        Boxes, masks if there are, confidence, ``class_id``, and in ``data`` ``class_name``,
        ``parent_id`` and a ``detection_id`` that is the same whenever the same is found.
    """
    count = len(found)
    stack = None if found.rles is None else MaskStack.from_rles(found.rles, found.image_hw)
    return sv.Detections(
        xyxy=found.boxes_xyxy.astype(np.float32).reshape(-1, 4),
        mask=stack,
        confidence=found.confidence.astype(np.float32),
        class_id=found.class_ids.astype(np.int64),
        data={
            "class_name": np.array(found.class_names, np.str_),
            "detection_id": _object_ids(found, image_id),
            "parent_id": np.array([image_id] * count, np.str_),
        },
    )


def to_rles(detections: sv.Detections, image_hw: Hw | None = None) -> tuple[Rle, ...]:
    """Make run lengths of the masks, whatever form they have; the one place that does.

    Args:
        detections: with masks; a `CompactMask` is never made a full-size array.
        image_hw: size of the picture they belong to, if it is known.

    Returns:
        One a row, in order.

    Raises:
        ValueError: if there are boxes alone, or the masks have another size than the picture.

    Example:
        >>> import numpy as np
        >>> masks = np.ones((1, 2, 3), bool)
        >>> [rle] = to_rles(to_detections(masks_to_prediction(masks)))
        >>> rle.size, rle.counts.tolist()
        ((2, 3), [0, 6])
    """
    mask = settle_masks(detections).mask
    if not len(detections):
        return ()
    if mask is None:
        raise ValueError(
            "wants detections with masks, got boxes alone. Make masks of them with sam2/segment."
        )
    if image_hw is not None and mask.shape[1:] != tuple(image_hw):
        (height, width), (high, wide) = mask.shape[1:], image_hw
        raise ValueError(
            f"the masks are {width}x{height} pixels, their picture is {wide}x{high}. Give the "
            "picture they were made on, or move or scale them with it."
        )
    return MaskStack.of(mask).to_rles()


def settle_masks(detections: sv.Detections) -> sv.Detections:
    """Leave a detection its mask in one place, `Detections.mask`.

    Args:
        detections: of any origin; not changed.

    Returns:
        The same, if there are no COCO run lengths in ``data["rle_mask"]``. Else without them: where
        there are masks, these are the truth; where there are none, they are made.

    Raises:
        ValueError: if run lengths that are needed are wrong, or of different sizes.
    """
    if RLE_COLUMN not in detections.data:
        return detections
    data = {name: column for name, column in detections.data.items() if name != RLE_COLUMN}
    if detections.mask is not None or not len(detections):
        return replace(detections, data=data)
    rles = [_checked_rle(index, coco) for index, coco in enumerate(detections.data[RLE_COLUMN])]
    try:
        return replace(detections, mask=MaskStack.from_rles(rles, rles[0].size), data=data)
    except ValueError as error:
        raise ValueError(f"data[{RLE_COLUMN!r}]: {error}") from error


def has_pixels(detections: sv.Detections) -> NDArray[np.bool_]:
    """Say which detections mark any pixel.

    Returns:
        bool, (N,): False where a mask is empty; True for every row without a mask.
    """
    mask = settle_masks(detections).mask
    if mask is None:
        return np.ones(len(detections), bool)
    return np.array([rle_area(rle) > 0 for rle in to_rles(detections)], bool)


def _count_rows(
    prediction: Any, *, prompting: sv.Detections | None, prompts: PromptSet | None
) -> int:
    if not isinstance(prediction, MaskPrediction):
        hint = " Turn them one by one." if isinstance(prediction, list) else ""
        raise TypeError(
            "wants a MaskPrediction, as executor.segment returns one for each picture, or "
            f"AutomaticMasks, got {type(prediction).__name__}.{hint}"
        )
    count = len(prediction)
    for name, given in (("prompting", prompting), ("prompts", prompts)):
        if given is not None and len(given) != count:
            raise ValueError(
                f"{name} must have one row for each of {count} masks, got {len(given)}"
            )
    return count


def _checked_rle(index: int, coco: Any) -> Rle:
    try:
        return coco_to_rle(coco)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"data[{RLE_COLUMN!r}] of row {index}: {error}") from error


def _column(given: NDArray[Any] | None, otherwise: NDArray[Any]) -> NDArray[Any]:
    return np.array(otherwise if given is None else given)


def _carried_over(source: sv.Detections) -> dict[str, NDArray[Any] | list[Any]]:
    return {
        name: values.copy() for name, values in source.data.items() if name not in _STALE_FIELDS
    }


def _class_ids(
    source: sv.Detections, names: NDArray[np.str_], numbers: dict[str, int] | None
) -> NDArray[Any]:
    """Those of the detector, or numbers of the names in the order in which they first come."""
    if source.class_id is not None:
        return np.array(source.class_id)
    numbers = {} if numbers is None else numbers
    return np.array([numbers.setdefault(name, len(numbers)) for name in names.tolist()], np.int64)


def _class_names(
    source: sv.Detections, class_name: str, prompts: PromptSet | None
) -> NDArray[np.str_]:
    if prompts is not None:
        said = (prompt.class_name for prompt in prompts.prompts)
        return np.array([name or class_name for name in said], np.str_)
    names = source.data.get("class_name")
    if names is None and source.class_id is not None:
        names = [f"class_{class_id}" for class_id in source.class_id]
    return np.array([class_name] * len(source) if names is None else names, np.str_)


def _detection_ids(prediction: MaskPrediction, image_id: str) -> NDArray[np.str_]:
    rows = zip(prediction.rles, prediction.iou_prediction, strict=True)
    ids = [
        _uuid_of(
            f"{image_id}\0{index}\0{rle.size}\0{float(iou)!r}\0",
            np.ascontiguousarray(rle.counts, np.int64).tobytes(),
        )
        for index, (rle, iou) in enumerate(rows)
    ]
    return np.array(ids, np.str_)


def _object_ids(found: FoundObjects, image_id: str) -> NDArray[np.str_]:
    """Ids that equal runs share: of the picture, the place, the class and the certainty."""
    rows = zip(found.boxes_xyxy.tolist(), found.class_names, found.confidence.tolist(), strict=True)
    ids = [
        _uuid_of(f"{image_id}\0{index}\0{box}\0{name}\0{score!r}")
        for index, (box, name, score) in enumerate(rows)
    ]
    return np.array(ids, np.str_)


def derive_ids(detections: sv.Detections, image_id: str) -> NDArray[np.str_]:
    """Make a ``detection_id`` for rows that have none; equal rows of a picture get equal ones.

    Args:
        detections: boxes, with whatever else is known of them.
        image_id: name of the picture.

    Returns:
        str, (N,): UUIDs made of the picture's name, the row, its box, class and confidence.
    """
    columns = detections.class_id, detections.confidence, detections.tracker_id
    ids = []
    for index, box in enumerate(detections.xyxy.tolist()):
        known = [None if column is None else column[index].item() for column in columns]
        ids.append(_uuid_of(f"{image_id}\0{index}\0{box}\0{known}"))
    return np.array(ids, np.str_)


def _uuid_of(text: str, more: bytes = b"") -> str:
    digest = sha256(text.encode("utf-8", "surrogatepass"))
    digest.update(more)
    return _uuid(digest.digest())


def _uuid(digest: bytes) -> str:
    """The text of ``UUID(bytes=digest[:16], version=5)``, which takes four times as long."""
    text = digest[:16].hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _prompt_detection_ids(source: sv.Detections) -> NDArray[np.str_]:
    ids = source.data.get("detection_id", [None] * len(source))
    return np.array(["" if id_ is None else id_ for id_ in ids], np.str_)

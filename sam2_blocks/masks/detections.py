"""Predictions as `supervision.Detections`: one prompt, one detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from supervision.detection.compact_mask import CompactMask

from sam2_blocks.masks.rle import rle_area, rle_crop, rle_to_coco, rles_to_boxes_xyxy
from sam2_blocks.values import (
    AutomaticMasks,
    Float32Array,
    Hw,
    Int64Array,
    MaskPrediction,
    Prompt,
    PromptSet,
    Rle,
)

_STALE_FIELDS = ("polygon",)
"""Fields that draw the shape of the prompting detection and would be taken for ours."""


def to_detections(
    prediction: MaskPrediction | AutomaticMasks,
    *,
    prompting: sv.Detections | None = None,
    prompts: PromptSet | None = None,
    image_id: str = "",
    class_name: str = "object",
    drop_empty: bool = False,
) -> sv.Detections:
    """Turn the masks of one image into detections, in the order of the prompts.

    ``xyxy`` is the tight box of the mask in inclusive pixel indices; an empty mask has zeros. Every
    field of the prompting detections is carried over. These fields of ``data`` are ours:

    - ``class_name``: the detector's; else ``class_name``, or ``class_7`` where it gave only ids.
    - ``detection_id``: a new UUID4.
    - ``parent_id``: the detector's ``detection_id``, else ``image_id``.
    - ``prompt_index``: number of the prompt, so that rows can be matched after filtering.
    - ``prompt_xyxy``: the prompting box, else the box around the points, else the whole image.
    - ``iou_prediction``: the model's estimate. ``confidence`` is the detector's, or this without.
    - ``rle_mask``: the mask as compressed COCO RLE.

    Args:
        prediction: the masks. With those found without prompts, the points that led to them are
            the prompts, and ``stability_score`` is a column more.
        prompting: the detections whose boxes were the prompts, one row a mask.
        prompts: the prompts, where there were no detections.
        image_id: name of the image.
        class_name: the class where no detector named one.
        drop_empty: leave out masks without a single pixel.

    Returns:
        Detections with a `CompactMask`; without masks, all fields are there with length 0.

    Raises:
        TypeError: if ``prediction`` is nothing of this kind.
        ValueError: if ``prompting`` or ``prompts`` has not one row for each mask.
    """
    stability = {}
    if isinstance(prediction, AutomaticMasks):
        stability["stability_score"] = np.array(prediction.stability_score, np.float32)
        if prompting is None and prompts is None:
            prompts = PromptSet.from_points(prediction.point_xy)
        prediction = prediction.prediction
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
    source = prompting if prompting is not None else sv.Detections(np.zeros((count, 4), np.float32))
    boxes_xyxy = rles_to_boxes_xyxy(prediction.rles)
    detections = sv.Detections(
        xyxy=boxes_xyxy.astype(np.float32),
        mask=_compact_mask(prediction.rles, boxes_xyxy, prediction.image_hw),
        confidence=_column(source.confidence, prediction.iou_prediction),
        class_id=_column(source.class_id, np.zeros(count, np.int64)),
        tracker_id=None if source.tracker_id is None else source.tracker_id.copy(),
        data={
            **_carried_over(source),
            "class_name": _class_names(source, class_name),
            "detection_id": np.array([str(uuid4()) for _ in range(count)], np.str_),
            "parent_id": _parent_ids(source, image_id),
            "prompt_index": np.arange(count),
            "prompt_xyxy": _prompt_boxes(prompting, prompts, prediction),
            "iou_prediction": np.array(prediction.iou_prediction, np.float32),
            "rle_mask": _objects([rle_to_coco(rle) for rle in prediction.rles]),
            **stability,
        },
        metadata=dict(source.metadata),
    )
    if drop_empty:
        return detections.select(np.array([rle_area(rle) > 0 for rle in prediction.rles], bool))
    return detections


def _compact_mask(rles: Sequence[Rle], boxes_xyxy: Int64Array, image_hw: Hw) -> CompactMask:
    """Store each mask as the run lengths of its tight box; an empty mask is one clear pixel."""
    crops = [rle_crop(rle, box) for rle, box in zip(rles, boxes_xyxy, strict=True)]
    return CompactMask(
        [crop.counts.astype(np.int32) for crop in crops],
        np.array([crop.size for crop in crops], np.int32).reshape(-1, 2),
        boxes_xyxy[:, :2].astype(np.int32),
        image_hw,
    )


def _column(given: NDArray[Any] | None, otherwise: NDArray[Any]) -> NDArray[Any]:
    return np.array(otherwise if given is None else given)


def _carried_over(source: sv.Detections) -> dict[str, NDArray[Any] | list[Any]]:
    return {
        name: values.copy() for name, values in source.data.items() if name not in _STALE_FIELDS
    }


def _class_names(source: sv.Detections, class_name: str) -> NDArray[np.str_]:
    names = source.data.get("class_name")
    if names is None and source.class_id is not None:
        names = [f"class_{class_id}" for class_id in source.class_id]
    return np.array([class_name] * len(source) if names is None else names, np.str_)


def _parent_ids(source: sv.Detections, image_id: str) -> NDArray[np.str_]:
    detector_ids = source.data.get("detection_id", [None] * len(source))
    return np.array([image_id if id_ is None else id_ for id_ in detector_ids], np.str_)


def _prompt_boxes(
    prompting: sv.Detections | None, prompts: PromptSet | None, prediction: MaskPrediction
) -> Float32Array:
    if prompting is not None:
        return np.array(prompting.xyxy, np.float32)
    given = prompts.prompts if prompts is not None else [Prompt()] * len(prediction)
    boxes = [_prompt_box(prompt, prediction.image_hw) for prompt in given]
    return np.array(boxes, np.float32).reshape(-1, 4)


def _prompt_box(prompt: Prompt, image_hw: Hw) -> Sequence[float] | Float32Array:
    if prompt.box_xyxy is not None:
        return prompt.box_xyxy
    if prompt.point_coords is not None:
        return np.concatenate((prompt.point_coords.min(axis=0), prompt.point_coords.max(axis=0)))
    return (0, 0, image_hw[1], image_hw[0])


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    """Make one array cell of each value; numpy would look into a list of lists."""
    column = np.empty(len(values), np.object_)
    column[:] = values
    return column

"""Detections ↔ labels of FiftyOne, whose boxes and points are shares of the picture.

A mask there is the part of it inside its box, and is stretched over the box when it is shown; so
boxes of masks are their own, up to the far edge of the last pixel, and nothing moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import supervision as sv

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.masks.detections import RLE_COLUMN, to_rles
from sam2_blocks.masks.rle import rle_area, rle_crop, rle_to_box_xyxy, rle_to_mask
from sam2_blocks.values import Hw, Rle

NO_LABEL = "object"
POINT_LABELS = ("sam_labels", "sam2_labels")
"""Attributes of key points that say which are on the object (1) and which beside it (0)."""


def to_fiftyone(detections: sv.Detections, image_hw: Hw | None = None) -> Any:
    """Make ``fiftyone.Detections``.

    Args:
        detections: with masks of any form, or boxes alone.
        image_hw: size of the picture; boxes alone need it.

    Returns:
        A label for each row with ``label``, ``bounding_box``, ``mask``, ``confidence`` and, of
        tracks, ``index``; rows whose mask is empty are left out.

    Raises:
        MissingExtraError: if FiftyOne is not installed.
        ValueError: if there are boxes alone and no ``image_hw``, or masks are of another size.
    """
    labels = load_labels()
    rows = to_label_rows(detections, image_hw)
    return labels.Detections(detections=[labels.Detection(**row) for row in rows])


def load_labels() -> Any:
    """Import ``fiftyone.core.labels``, which needs no database.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import fiftyone.core.labels as labels
    except ImportError as error:
        raise MissingExtraError(f"{error}. Run: pip install fiftyone") from error
    return labels


def to_label_rows(detections: sv.Detections, image_hw: Hw | None = None) -> list[dict[str, Any]]:
    """Make the fields of ``fiftyone.Detection`` of each row.

    Arguments, rows and errors are those of `to_fiftyone`; FiftyOne is not imported.
    """
    if detections.mask is not None or RLE_COLUMN in detections.data:
        rles = to_rles(detections, image_hw)
        places = [_of_mask(rle) if rle_area(rle) else None for rle in rles]
    elif image_hw is None and len(detections):
        raise ValueError("boxes alone do not say how large the picture is: give image_hw.")
    else:
        places = [_of_box(xyxy, image_hw or (1, 1)) for xyxy in detections.xyxy]
    return [{**_fields(detections, index), **place} for index, place in enumerate(places) if place]


def _of_mask(rle: Rle) -> dict[str, Any]:
    x0, y0, x1, y1 = pixels = [int(edge) for edge in rle_to_box_xyxy(rle)]
    place = _of_box((x0, y0, x1 + 1, y1 + 1), rle.size)
    return {**place, "mask": rle_to_mask(rle_crop(rle, pixels))}


def _of_box(xyxy: Sequence[float], image_hw: Hw) -> dict[str, Any]:
    height, width = image_hw
    x0, x1 = (float(np.clip(x / width, 0, 1)) for x in (xyxy[0], xyxy[2]))
    y0, y1 = (float(np.clip(y / height, 0, 1)) for y in (xyxy[1], xyxy[3]))
    return {"bounding_box": [x0, y0, x1 - x0, y1 - y0]}


def _fields(detections: sv.Detections, index: int) -> dict[str, Any]:
    names = detections.data.get("class_name")
    fields: dict[str, Any] = {"label": NO_LABEL if names is None else str(names[index])}
    if detections.confidence is not None:
        fields["confidence"] = float(detections.confidence[index])
    if detections.tracker_id is not None:
        fields["index"] = int(detections.tracker_id[index])
    return fields


def boxes_of(label: Any, image_hw: Hw) -> sv.Detections:
    """Read ``fiftyone.Detections`` as boxes that prompt.

    Args:
        label: their boxes are x, y, width and height, as shares of the picture.
        image_hw: size of the picture in pixels.

    Returns:
        Boxes in pixels, with the labels as class names, and with the indices as ``tracker_id`` if
        every one has an index.
    """
    height, width = image_hw
    given = label.detections
    scale = np.array([width, height, width, height], np.float64)
    shares = np.array([one.bounding_box for one in given], np.float64).reshape(-1, 4)
    shares[:, 2:] += shares[:, :2]
    names = np.array([one.label or NO_LABEL for one in given], np.str_)
    indices = [one.index for one in given]
    return sv.Detections(
        xyxy=(shares * scale).astype(np.float32),
        class_id=np.unique(names, return_inverse=True)[1].astype(int),
        tracker_id=None if None in indices or not given else np.array(indices, int),
        data={"class_name": names},
    )


def prompts_of(label: Any, image_hw: Hw) -> tuple[list[dict[str, Any]], list[str]]:
    """Read ``fiftyone.Keypoints`` as prompts, one an object, and their labels.

    Points that are not there (NaN) are left out, and objects without any other point. All points
    are foreground unless an attribute named in `POINT_LABELS` has a label for each.

    Args:
        label: their points are x and y, as shares of the picture.
        image_hw: size of the picture in pixels.

    Returns:
        Prompts as `sam2_blocks.prompts.parse_prompts` reads them, and the label of each.

    Raises:
        ValueError: if the labels of an object are not one a point.
    """
    height, width = image_hw
    prompts: list[dict[str, Any]] = []
    names: list[str] = []
    for one in label.keypoints:
        points = np.array(one.points, np.float64).reshape(-1, 2) * (width, height)
        said = next((_said(one, name) for name in POINT_LABELS if _said(one, name)), None)
        labels = np.ones(len(points), int) if said is None else np.array(said, int)
        if len(labels) != len(points):
            raise ValueError(
                f"key points of {one.label!r}: {len(points)} points, {len(labels)} labels"
            )
        is_there = np.isfinite(points).all(axis=1)
        if is_there.any():
            found = {"point_coords": points[is_there], "point_labels": labels[is_there]}
            prompts.append({name: array.tolist() for name, array in found.items()})
            names.append(one.label or NO_LABEL)
    return prompts, names


def _said(keypoint: Any, name: str) -> Sequence[int] | None:
    attributes: Mapping[str, Any] = getattr(keypoint, "attributes", None) or {}
    found: Sequence[int] | None = getattr(keypoint, name, None) or attributes.get(name)
    return found

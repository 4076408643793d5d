"""The engine's own SAM 2 block, whose model answers with the outlines it is given."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import numpy as np
import supervision as sv


def frame(pixels, *, name="image", number=1):
    """A picture of a video, as the engine hands it from block to block."""
    from roboflow_workflows.execution_engine.entities.base import (
        ImageParentMetadata,
        VideoMetadata,
        WorkflowImageData,
    )

    return WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id=name),
        numpy_image=pixels,
        video_metadata=VideoMetadata(
            video_identifier="clip",
            frame_number=number,
            frame_timestamp=datetime(2026, 1, 1),
            fps=30,
            comes_from_video_file=True,
        ),
    )


class OutlineModels:
    """Stands for the engine's models: answers with one outline a prompt."""

    def __init__(self, outlines, confidence):
        self._outlines, self._confidence = outlines, confidence

    def add_model(self, *_, **__):
        """Has it already."""

    def run_sam2_segmentation(self, **_):
        pairs = zip(self._outlines, self._confidence, strict=True)
        return [
            SimpleNamespace(
                predictions=[
                    SimpleNamespace(masks=[outline], confidence=float(one))
                    for outline, one in pairs
                ]
            )
        ]


def same_of_theirs(found, picture, boxes):
    """What their block makes of the same masks, boxes, confidences and ids.

    Args:
        found: predictions of ours, each mask one part without a hole.
        picture: what they were made on.
        boxes: what they were prompted with.
    """
    from roboflow_workflows.core_steps.common.entities import StepExecutionMode
    from roboflow_workflows.core_steps.common.serializers import mask_to_polygon
    from roboflow_workflows.core_steps.models.foundation.segment_anything2 import v1

    outlines = [mask_to_polygon(mask=np.asarray(mask)).tolist() for mask in found.mask]
    models = OutlineModels(outlines, found.confidence)
    block = v1.SegmentAnything2BlockV1(models, None, StepExecutionMode.LOCAL)
    [made] = block.run([picture], [boxes], "hiera_tiny", 0.0, multimask_output=True)
    made = made["predictions"]
    made.data["detection_id"] = found.data["detection_id"].copy()
    return made


class TrackModel:
    """Stands for the engine's model of videos: answers with the masks and ids it is given."""

    def __init__(self, found):
        self._found = found

    def prompt(self, **_):
        return np.asarray(self._found.mask), self._found.tracker_id, {}


def tracks_of_theirs(found, pixels):
    """What their block of videos makes of the same masks and ids on a first frame.

    Args:
        found: predictions of ours on that frame, none of them lost.
        pixels: the frame.
    """
    from roboflow_workflows.core_steps.common.entities import StepExecutionMode
    from roboflow_workflows.core_steps.models.foundation.segment_anything2_video import v1

    block = v1.SegmentAnything2VideoBlockV1(None, None, StepExecutionMode.LOCAL)
    block._model, block._current_model_id = TrackModel(found), "sam2video/small"
    boxes = sv.Detections(
        found.xyxy, None, found.confidence, found.class_id, data={"class_name": found["class_name"]}
    )
    picture = frame(pixels, name=found.data["parent_id"][0])
    [made] = block.run([picture], [boxes], "sam2video/small", "first_frame", 30, 0.0)
    return made["predictions"]


def same(one, other, *, ids=()):
    """Whether two outputs are equal, whatever their masks are kept in.

    Args:
        one: an output.
        other: another.
        ids: columns and fields that are drawn anew.
    """
    if isinstance(one, sv.Detections):
        return isinstance(other, sv.Detections) and _same_detections(one, other, ids)
    if hasattr(one, "numpy_image"):
        return np.array_equal(one.numpy_image, other.numpy_image)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], ids=ids) for k in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(a, b, ids=ids) for a, b in pairs)
    if isinstance(one, np.ndarray):
        return _same_arrays(one, other)
    return type(one) is type(other) and (one == other or one != one)


def _same_detections(one, other, ids):
    columns = set(one.data) - set(ids)
    if columns != set(other.data) - set(ids) or len(one) != len(other):
        return False
    pairs = [(one.data[name], other.data[name]) for name in columns]
    fields = {"xyxy", "mask", "confidence", "class_id", "tracker_id"} - set(ids)
    pairs += [(getattr(one, name), getattr(other, name)) for name in fields]
    return all(_same_arrays(a, b) for a, b in pairs)


def _same_arrays(one, other):
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        return a.shape == b.shape and np.allclose(a, b, atol=1e-4, equal_nan=True)
    return a.shape == b.shape and a.tolist() == b.tolist()

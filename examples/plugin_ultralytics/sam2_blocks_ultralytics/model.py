"""A name to a model of Ultralytics that is ready to run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import supervision as sv
import torch
import ultralytics

from sam2_blocks import Image, ModelError
from sam2_blocks.values import ExecutorSpec
from sam2_blocks_ultralytics import find_problem

TASKS = ("detect", "segment", "pose", "obb")


@dataclass(frozen=True, eq=False)
class UltralyticsModel:
    """A model; threads take turns, since it keeps what it is about in itself.

    Attributes:
        spec: resolved model and device.
        model: of Ultralytics.
    """

    spec: ExecutorSpec
    model: Any
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it knows; a class's number is its place."""
        return tuple(str(name) for _, name in sorted(self.model.names.items()))

    def find(self, images: Sequence[Image], **asked: Any) -> list[sv.Detections]:
        """Find objects in pictures of any sizes.

        Args:
            images: the pictures.
            asked: what Ultralytics' ``predict`` is told besides.
        """
        pixels = [np.ascontiguousarray(image.pixels[..., ::-1]) for image in images]  # RGB to BGR
        with self._turn:
            found = self.model.predict(
                pixels,
                device=self.spec.device,
                batch=len(pixels),
                retina_masks=True,  # masks of the picture's size, not of the input's
                verbose=False,
                **asked,
            )
        return [_typed(sv.Detections.from_ultralytics(one)) for one in found]


def load(name: str, *, device: str = "auto") -> UltralyticsModel:
    """Load a model.

    Args:
        name: a file, or the name of a model that is downloaded.
        device: ``auto`` (CUDA, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ModelError: if it cannot be loaded, or finds no boxes.
    """
    problem = find_problem(name)
    if problem:
        raise ModelError(problem)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = ultralytics.YOLO(name)
        task, names = model.task, model.names
    except Exception as error:  # files of strangers fail in many ways
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"Ultralytics cannot load {name!r}: {reason}") from error
    if task not in TASKS or not names:
        raise ModelError(
            f"{name!r} is a model for the task {task!r}, which finds no boxes. Use one for "
            f"{', '.join(TASKS)}."
        )
    resolved = f"{device}:0" if device == "cuda" else device
    return UltralyticsModel(ExecutorSpec(name, resolved, "float32", "ultralytics"), model)


def _typed(found: sv.Detections) -> sv.Detections:
    """Columns of the right types, also without rows, and none that only Ultralytics has."""
    names = found.data.get("class_name", [])
    return sv.Detections(
        xyxy=np.asarray(found.xyxy, np.float32).reshape(-1, 4),
        mask=found.mask,
        confidence=np.asarray(found.confidence, np.float32).reshape(-1),
        class_id=np.asarray(found.class_id, np.int64).reshape(-1),
        data={"class_name": np.asarray(names, np.str_)},
    )

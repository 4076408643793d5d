"""A checkpoint to a model of rfdetr that is ready to run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
import torch
from rfdetr import RFDETR

from sam2_blocks import Image, ModelError
from sam2_blocks.values import ExecutorSpec
from sam2_blocks_rfdetr import find_problem


@dataclass(frozen=True, eq=False)
class RfdetrModel:
    """A model; threads take turns.

    Attributes:
        spec: resolved model and device.
        model: of rfdetr.
    """

    spec: ExecutorSpec
    model: Any
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it knows."""
        return tuple(self.model.class_names)

    def find(self, images: Sequence[Image], threshold: float) -> list[sv.Detections]:
        """Find objects in pictures of any sizes, the most certain first."""
        pixels = [np.ascontiguousarray(image.pixels) for image in images]
        with self._turn:
            found = self.model.predict(pixels, threshold=threshold, include_source_image=False)
        return [_typed(one) for one in (found if isinstance(found, list) else [found])]


def load(path: str, *, device: str = "auto") -> RfdetrModel:
    """Load a checkpoint.

    Args:
        path: the file.
        device: ``auto`` (CUDA, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ModelError: if it cannot be loaded, or makes key points.
    """
    problem = find_problem(path)
    if problem:
        raise ModelError(problem)
    if device in ("auto", "cuda"):
        device = "cuda:0" if device == "cuda" or torch.cuda.is_available() else "cpu"
    try:
        # rfdetr takes a bare name for one of a folder of its own.
        model = RFDETR.from_checkpoint(str(Path(path).absolute()), device=device)
    except Exception as error:  # files of strangers fail in many ways
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"rfdetr cannot load {path!r}: {reason}") from error
    if "Keypoint" in type(model).__name__:
        raise ModelError(f"{path!r} is a model of key points. Use one that finds boxes or masks.")
    return RfdetrModel(ExecutorSpec(path, device, "float32", "rfdetr"), model)


def _typed(found: sv.Detections) -> sv.Detections:
    """Columns of the right types, also without rows, and none that only rfdetr has."""
    order = np.argsort(-np.asarray(found.confidence, np.float32), kind="stable")
    names = np.asarray(found.data.get("class_name", []), np.str_)
    return sv.Detections(
        xyxy=np.asarray(found.xyxy, np.float32).reshape(-1, 4)[order],
        mask=None if found.mask is None else np.asarray(found.mask, bool)[order],
        confidence=np.asarray(found.confidence, np.float32)[order],
        class_id=np.asarray(found.class_id, np.int64)[order],
        data={"class_name": names[order]},
    )

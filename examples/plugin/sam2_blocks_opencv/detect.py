"""``opencv/detect@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import supervision as sv

CASCADES = {
    "frontal_face": ("face", "haarcascade_frontalface_default.xml"),
    "profile_face": ("face", "haarcascade_profileface.xml"),
    "eye": ("eye", "haarcascade_eye.xml"),
    "cat_face": ("cat_face", "haarcascade_frontalcatface.xml"),
    "upper_body": ("upper_body", "haarcascade_upperbody.xml"),
}
CLASS_NAMES = ("face", "eye", "cat_face", "upper_body", "person")  # class_id is the place in it
Found = tuple[Any, Any]
"""Boxes (N, 4) as x, y, width, height, and scores (N,); two empty tuples if nothing is found."""


class Detect:
    """Look for one kind of object in each picture; every detector is loaded once."""

    def __init__(self, resources: object) -> None:
        self._cascades: dict[str, cv2.CascadeClassifier] = {}
        self._hog: cv2.HOGDescriptor | None = None

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"detections": self._detect(item)} for item in items]

    def _detect(self, item: Any) -> sv.Detections:
        gray = cv2.cvtColor(item.image.pixels, cv2.COLOR_RGB2GRAY)  # OpenCV itself would be BGR
        if item.detector == "person":
            return _to_detections(self._find_people(gray, item), "person", item)
        class_name, file = CASCADES[item.detector]
        return _to_detections(self._find_by_cascade(gray, file, item), class_name, item)

    def _find_by_cascade(self, gray: Any, file: str, item: Any) -> Found:
        if file not in self._cascades:
            self._cascades[file] = cv2.CascadeClassifier(cv2.data.haarcascades + file)
        boxes_xywh, _, scores = self._cascades[file].detectMultiScale3(
            gray,
            scaleFactor=item.scale_step,
            minNeighbors=item.min_neighbors,
            minSize=(item.min_size, item.min_size),
            outputRejectLevels=True,
        )
        return boxes_xywh, scores

    def _find_people(self, gray: Any, item: Any) -> Found:
        if gray.shape[0] < 128 or gray.shape[1] < 64:
            return (), ()  # smaller than its window; OpenCV 4.14 corrupts memory on such pictures
        if self._hog is None:
            self._hog = cv2.HOGDescriptor()
            self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
        return self._hog.detectMultiScale(
            gray,
            winStride=(8, 8),
            padding=(8, 8),
            scale=item.scale_step,
            groupThreshold=item.min_neighbors,
        )


def _to_detections(found: Found, class_name: str, item: Any) -> sv.Detections:
    """Make detections, surest first; without boxes, the same columns with length 0."""
    boxes = np.asarray(found[0], np.float32).reshape(-1, 4)
    scores = np.asarray(found[1], np.float32).reshape(-1)
    height, width = item.image.hw
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    detections = sv.Detections(
        xyxy=np.clip(corners, 0, np.array([width, height, width, height], np.float32)),
        confidence=1 / (1 + np.exp(-scores)),
        class_id=np.full(len(boxes), CLASS_NAMES.index(class_name)),
        data={"class_name": np.full(len(boxes), class_name), "score": scores},
    )
    surest_first = np.argsort(-scores, kind="stable")
    is_large = boxes[:, 2:].min(axis=1) >= item.min_size
    return detections[surest_first[is_large[surest_first]]]

"""The second family of ``tests/test_threshold_family.py`` inside the engine."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from sam2_blocks import load_plugins
from tests.hosts.roboflow.conftest import HW, IGNORED, PREDICTIONS, SEGMENT, run_one

pytestmark = pytest.mark.filterwarnings(IGNORED)

BOX = {"x": 160, "y": 120, "width": 280, "height": 200, "confidence": 0.9}
BOX |= {"class": "square", "class_id": 0, "detection_id": "one"}


def test_a_model_of_another_family_answers(start):
    point = EntryPoint("threshold", "tests.threshold_family", "sam2_blocks")
    resources = load_plugins(strict=True, points=[point]).resources(local_models=False)
    picture = np.full((*HW, 3), 20, np.uint8)
    picture[60:150, 80:200] = 220
    boxes = {"image": {"width": HW[1], "height": HW[0]}, "predictions": [BOX]}
    step = {**SEGMENT, "model": "threshold:otsu"}
    result = run_one(start([step], PREDICTIONS, resources=resources), image=picture, boxes=boxes)
    [mask] = np.asarray(result["predictions"].mask)
    assert np.array_equal(mask, picture[..., 0] > 100)

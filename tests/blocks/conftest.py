from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image

HW = (40, 60)


@pytest.fixture
def mask():
    """Two parts, the larger one with a hole."""
    mask = np.zeros(HW, bool)
    mask[4:24, 10:40] = True
    mask[10:14, 20:28] = False
    mask[30:36, 5:9] = True
    return mask


@pytest.fixture
def export(plugins, tmp_path):
    """Run a block on masks of the picture ``deep/a.png``: its result."""

    def run(block, *masks, class_names=("face",), class_ids=(7,), **params):
        found = to_detections(masks_to_prediction(np.array(masks, bool).reshape(-1, *HW)))
        found.class_id = np.array(class_ids[: len(masks)], int)
        found.data["class_name"] = np.array(class_names[: len(masks)], np.str_)
        inputs = {"image": picture(tmp_path), "predictions": found}
        resources = Resources({}, tmp_path / "out")
        return run_block(block, inputs, plugins=plugins, resources=resources, **params)

    return run


def picture(folder, name="deep/a.png"):
    return Image(np.zeros((*HW, 3), np.uint8), id=name, path=folder / "in" / name)

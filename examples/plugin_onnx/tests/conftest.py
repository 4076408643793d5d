from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sam2_blocks import Image, load_plugins, testing


@pytest.fixture(scope="session")
def plugins():
    """Every installed plugin, this one among them; a broken one fails the tests."""
    return load_plugins(strict=True)


@pytest.fixture
def detect(plugins, tmp_path, monkeypatch):
    """Run the block on pictures, in a folder for models: ``detect(picture, model="a.onnx")``."""
    monkeypatch.chdir(tmp_path)
    run = partial(testing.run_block, "onnx/detect@v1", plugins=plugins)

    def of(picture, **params):
        result = run({"image": picture}, resources=plugins.resources(tmp_path), **params)
        if result.errors:
            raise ValueError(result.errors[0].message)
        return result.outputs["detections"]

    return of


@pytest.fixture
def make_picture():
    """A black picture with white boxes: ``make_picture(box, hw=(45, 60))``."""

    def make(*boxes_xyxy, hw=(45, 60)):
        pixels = np.zeros((*hw, 3), np.uint8)
        for x0, y0, x1, y1 in boxes_xyxy:
            pixels[y0:y1, x0:x1] = 255
        return Image(pixels, "picture")

    return make

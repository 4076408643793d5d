from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.formats.images import MAX_PIXELS

BOXES = {
    "pipeline_version": 1,
    "inputs": {
        "image": {"kind": "image"},
        "boxes": {"kind": "object_detection_prediction", "default": [[0, 0, 4, 4]]},
        "model": {"kind": "string", "default": "nano"},
    },
    "steps": {
        "find": {
            "use": "sam2/segment@v1",
            "with": {
                "image": "$inputs.image",
                "boxes": "$inputs.boxes",
                "model": "$inputs.model",
            },
        }
    },
    "outputs": {"found": "$steps.find.predictions"},
}


@pytest.fixture
def asked(plugins):
    """What is asked for: a pipeline with a picture, boxes and the name of a model."""
    return RunRequest(plugins.load_pipeline(BOXES), plugins, max_pixels=MAX_PIXELS)


@pytest.fixture
def picture():
    """The bytes of a PNG of a size: ``picture(width)``; it is 6 pixels high."""

    def make(width=8):
        stream = io.BytesIO()
        Pil.fromarray(np.full((6, width, 3), width, np.uint8)).save(stream, "PNG")
        return stream.getvalue()

    return make


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def read():
    """What an item's input is: ``read(item, name)``."""

    def ask(item, name="image"):
        value = item.inputs[name]
        return value() if callable(value) else value

    return ask

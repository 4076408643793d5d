from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.rle import mask_to_rle, rles_to_boxes_xyxy
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import MaskPrediction

# The engine and what it imports warn of themselves; ours still fail the test.
IGNORED = "ignore:::(?!sam2_blocks)"
PLUGIN = "sam2_blocks.hosts.roboflow"
HW = (240, 320)
SEGMENT = {
    "type": "sam2_blocks/segment@v1",
    "name": "segment",
    "image": "$inputs.image",
    "boxes": "$inputs.boxes",
    "model": "nano",
}
DRAW = [
    {
        "type": f"roboflow_core/{shape}_visualization@v1",
        "name": shape,
        "image": "$inputs.image",
        "predictions": "$steps.segment.predictions",
    }
    for shape in ("mask", "polygon")
]


class RingExecutor(FakeExecutor):
    """Answers every prompt with one mask: a ring, and a dot beside it."""

    def segment(self, items, **_):
        return [self._rings(embedding.image_hw, len(prompts)) for embedding, prompts in items]

    def _rings(self, image_hw, count):
        rles = (mask_to_rle(ring_mask(image_hw)),) * count
        return MaskPrediction(
            image_hw=image_hw,
            rles=rles,
            iou_prediction=np.full(count, 0.75, np.float32),
            low_res_logits=np.zeros((count, 8, 8), np.float32),
            mask_box_xyxy=rles_to_boxes_xyxy(rles),
        )


class LoggingExecutor(FakeExecutor):
    """Keeps the pictures it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def embed(self, images):
        self.pictures = list(images)
        self.seen += images
        return super().embed(images)


def ring_mask(image_hw):
    mask = np.zeros(image_hw, bool)
    mask[40:120, 40:120] = True
    mask[60:100, 60:100] = False
    mask[150:170, 200:230] = True
    return mask


@pytest.fixture(scope="session")
def engine_class():
    """The engine, in a process where its torchvision can be imported."""
    pytest.importorskip("roboflow_workflows", reason="needs the extra roboflow")
    os.environ["WORKFLOWS_PLUGINS"] = PLUGIN
    define_torchvision_operators()
    from roboflow_workflows.execution_engine.core import ExecutionEngine

    yield ExecutionEngine
    del os.environ["WORKFLOWS_PLUGINS"]


def define_torchvision_operators():
    """Let torchvision be imported beside a torch that its compiled half was not built for.

    The engine imports it to decode pictures, which these tests do not do.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        sys.modules.pop("torchvision", None)
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        define_torchvision_operators.library = library  # it undefines them when collected


def resources_of(factory):
    """Resources with one executor, and that executor."""
    made = factory() if isinstance(factory, type) else factory
    return Resources(dict.fromkeys(("sam2", "fake"), lambda *_, **__: made)), made


@pytest.fixture
def start(engine_class):
    """Compile a workflow: ``start(steps, outputs, inputs=…, resources=…)``."""

    def compile_workflow(steps, outputs, *, inputs=None, resources=None, blocks=(), **options):
        document = {
            "version": "1.0",
            "inputs": inputs or [IMAGE, BOXES],
            "steps": steps,
            "dynamic_blocks_definitions": list(blocks),
            "outputs": [
                {"type": "JsonField", "name": name, "selector": selector, **options}
                for name, selector in outputs.items()
            ],
        }
        given = {f"{PLUGIN}.resources": resources or resources_of(FakeExecutor)[0]}
        return engine_class.init(workflow_definition=document, init_parameters=given)

    return compile_workflow


IMAGE = {"type": "WorkflowImage", "name": "image"}
BOXES = {
    "type": "WorkflowBatchInput",
    "name": "boxes",
    "kind": ["object_detection_prediction"],
}
PREDICTIONS = {"predictions": "$steps.segment.predictions"}


def picture(seed=0):
    """A picture as the engine's users give it: BGR."""
    return np.random.default_rng(seed).integers(0, 256, (*HW, 3), np.uint8)


def detector_output(count):
    """What the engine's serialisers make of a detector's boxes."""
    rows = [
        {
            "x": 60 + 30 * index,
            "y": 60 + 20 * index,
            "width": 40,
            "height": 30,
            "confidence": 0.5 + 0.1 * index,
            "class": f"class-{index}",
            "class_id": index,
            "detection_id": f"box-{index}",
        }
        for index in range(count)
    ]
    return {"image": {"width": HW[1], "height": HW[0]}, "predictions": rows}


def run_one(engine, *, serialize=False, **inputs):
    [result] = engine.run(runtime_parameters=inputs, serialize_results=serialize)
    return result

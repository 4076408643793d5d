"""What Roboflow Workflows and our adapter cost per call, over the executor alone.

    python benchmarks/roboflow_overhead.py

The executor is asked once for real masks of ``nano`` and then answers from memory, so that all time
measured is overhead: our block as the engine calls it, with dense masks as by default and with
``compact_masks``, and a whole run of a workflow of one step. Beside it runs Roboflow's own block,
whose model answers with the polygons of the same masks. The last columns are what the masks of one
picture take, dense and compact.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

os.environ["WORKFLOWS_PLUGINS"] = "sam2_blocks.hosts.roboflow"

import numpy as np
from PIL import Image as Pil
from roboflow_workflows.core_steps.common.entities import StepExecutionMode
from roboflow_workflows.core_steps.models.foundation.segment_anything2.v1 import (
    SegmentAnything2BlockV1,
)
from roboflow_workflows.execution_engine.core import ExecutionEngine
from roboflow_workflows.execution_engine.entities.base import (
    Batch,
    ImageParentMetadata,
    WorkflowImageData,
)

from sam2_blocks import Image, PromptSet, load_executor
from sam2_blocks.engine.resources import Resources
from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.hosts import roboflow
from sam2_blocks.masks.polygons import rle_to_polygons

CALLS = 20
PICTURE = Path(__file__).parent.parent / "examples" / "pictures" / "coffee.jpg"
WORKFLOW = {
    "version": "1.0",
    "inputs": [
        {"type": "WorkflowImage", "name": "image"},
        {"type": "WorkflowBatchInput", "name": "boxes", "kind": ["object_detection_prediction"]},
    ],
    "steps": [
        {
            "type": "sam2_blocks/segment@v1",
            "name": "segment",
            "image": "$inputs.image",
            "boxes": "$inputs.boxes",
        }
    ],
    "outputs": [
        {"type": "JsonField", "name": "found", "selector": "$steps.segment.predictions"},
    ],
}


class Replay:
    """An executor that remembers one answer, and a model manager as their block wants it."""

    def __init__(self, image: Image, prompts: PromptSet) -> None:
        executor = load_executor("nano", device="cpu")
        self.spec = executor.spec
        self.embeddings = executor.embed([image])
        self.predictions = executor.segment([(self.embeddings[0], prompts)])
        polygons = [rle_to_polygons(rle).outer for rle in self.predictions[0].rles]
        self.response = SimpleNamespace(
            predictions=[
                SimpleNamespace(masks=[ring.tolist() for ring in rings], confidence=0.9)
                for rings in polygons
            ]
        )

    def embed(self, images):
        return self.embeddings

    def segment(self, items, **_):
        return self.predictions

    def add_model(self, *_, **__):
        pass

    def run_sam2_segmentation(self, **_):
        return [self.response]


def measure(*calls) -> list[str]:
    """Median and best milliseconds of each call, run in turn."""
    times = [[] for _ in calls]
    for _ in range(CALLS + 3):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - start))
    return [f"{statistics.median(taken[3:]):.1f} ({min(taken[3:]):.1f})" for taken in times]


def boxes_of_a_detector(count: int, height: int, width: int):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (count, 2)) * (width, height)
    boxes = np.hstack((corner, corner + rng.uniform(0.1, 0.3, (count, 2)) * (width, height)))
    found = rows_to_detections(
        [{"box_xyxy": box.tolist(), "class_name": "x", "confidence": 0.9} for box in boxes]
    )
    found.data["detection_id"] = np.array([str(index) for index in range(count)])
    return found


def compare(height: int, width: int, count: int) -> None:
    pixels = np.array(Pil.open(PICTURE).convert("RGB").resize((width, height)))
    found = boxes_of_a_detector(count, height, width)
    replay = Replay(Image(pixels), PromptSet.from_boxes(found.xyxy))
    resources = Resources({"sam2": lambda *_, **__: replay})
    [block] = [
        made(resources)
        for made in roboflow.load_blocks()
        if made.get_manifest().__name__.startswith("Sam2_Blocks_Segment")
    ]
    theirs = SegmentAnything2BlockV1(replay, None, StepExecutionMode.LOCAL)
    picture = WorkflowImageData(ImageParentMetadata(parent_id="image"), numpy_image=pixels)
    images, boxes = Batch([picture], [(0,)]), Batch([found], [(0,)])
    engine = ExecutionEngine.init(
        workflow_definition=WORKFLOW,
        init_parameters={"sam2_blocks.hosts.roboflow.resources": resources},
    )
    columns = measure(
        lambda: block.run(image=images, boxes=boxes),
        lambda: block.run(image=images, boxes=boxes, compact_masks=True),
        lambda: engine.run(runtime_parameters={"image": [pixels], "boxes": [found]}),
        lambda: theirs.run(images, boxes, "hiera_tiny", 0.0, True),
    )
    sizes = [
        megabytes(
            block.run(image=images, boxes=boxes, compact_masks=compact)[0]["predictions"].mask
        )
        for compact in (False, True)
    ]
    size = f"{width}x{height}"
    print(f"{size:<10} {count:>5}", *(f"{column:>16}" for column in (*columns, *sizes)))


def megabytes(masks) -> str:
    """What the masks of a picture take in memory."""
    runs = [masks] if isinstance(masks, np.ndarray) else masks._rles
    return f"{sum(array.nbytes for array in runs) / 1e6:.3f}"


if __name__ == "__main__":
    print("ms per call, median (best); masks are ready, so this is overhead alone")
    titles = ("our block", "compact_masks", "our workflow", "their block", "dense MB", "compact MB")
    print(f"{'picture':<10} boxes", *(f"{title:>16}" for title in titles))
    for hw in ((480, 640), (1080, 1920)):
        for boxes_per_picture in (1, 10, 100):
            compare(*hw, boxes_per_picture)

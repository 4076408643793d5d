"""What a pipeline of detector and SAM 2 adds to what its two models take, for each picture.

    python -m benchmarks.chain_overhead

Ten pictures with 100 detections each. Detector and executor answer from memory with what they found
once, so that all time measured is the chain's: checks, conversions and hand-overs. Medians of
passes over all pictures, the two sides in turn, in time of the processor, which other programs do
not lengthen as they do time on the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from sam2_blocks import Image, Item, PromptSet, Resources, Runner, load_executor, load_plugins
from sam2_blocks.executors import Executor
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.testing import FakeDetector
from sam2_blocks.values import Embedding, MaskPrediction

PICTURES, OBJECTS, PASSES = 10, 100, 7
HW = (606, 768)
LIMIT_MS = 5.0

PIPELINE = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}},
    "steps": {
        "detect": {"use": "transformers/detect@v1", "with": {"image": "$inputs.image"}},
        "segment": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$steps.detect.detections"},
        },
    },
    "outputs": {"predictions": "$steps.segment.predictions"},
}


class Remembered(FakeDetector):
    """Finds the same 100 objects in every picture."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__("remembered")
        rng = np.random.default_rng(0)
        corners = rng.uniform((0, 0), (HW[1] - 80, HW[0] - 80), (OBJECTS, 2))
        sizes = rng.uniform(20, 80, (OBJECTS, 2))
        self.found = FoundObjects(
            image_hw=HW,
            boxes_xyxy=np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
            confidence=np.linspace(0.9, 0.5, OBJECTS, dtype=np.float32),
            class_ids=np.zeros(OBJECTS, np.int64),
            class_names=("person",) * OBJECTS,
        )

    def detect(self, images: Sequence[Image], **options: object) -> list[FoundObjects]:
        """Remember."""
        return [self.found] * len(images)


class Answered:
    """An executor that answers with the masks that ``nano`` made of one picture."""

    def __init__(self, executor: Executor, image: Image, found: FoundObjects) -> None:
        self.spec = executor.spec
        self._embedding = executor.embed([image])[0]
        prompts = PromptSet.from_boxes(found.boxes_xyxy)
        self._prediction = executor.segment([(self._embedding, prompts)])[0]

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Remember."""
        return [self._embedding] * len(images)

    def segment(self, items: Sequence[object], **options: object) -> list[MaskPrediction]:
        """Remember."""
        return [self._prediction] * len(items)


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    pictures = [
        Image(rng.integers(0, 256, (*HW, 3), dtype=np.uint8), f"{number}.png")
        for number in range(PICTURES)
    ]
    detector = Remembered()
    executor = Answered(load_executor("nano"), pictures[0], detector.found)
    plugins = load_plugins(points=[])
    pipeline = plugins.load_pipeline(PIPELINE)
    loaders = {"sam2": lambda *_, **__: executor, "transformers": lambda *_, **__: detector}
    with Runner(pipeline, plugins, resources=Resources(loaders)) as runner:

        def chain() -> int:
            items = [Item(picture.id, {"image": picture}) for picture in pictures]
            return sum(len(result.outputs["predictions"]) for result in runner.run(items))

        def alone() -> int:
            count = 0
            for picture in pictures:
                [found] = detector.detect([picture])
                [embedding] = executor.embed([picture])
                prompts = PromptSet.from_boxes(found.boxes_xyxy)
                count += len(executor.segment([(embedding, prompts)])[0])
            return count

        assert chain() == alone() == PICTURES * OBJECTS
        times: dict[Callable[[], int], list[float]] = {chain: [], alone: []}
        for _ in range(PASSES):
            for side, taken in times.items():
                started = time.process_time()
                side()
                taken.append(time.process_time() - started)
    medians = {side: 1000 * statistics.median(taken) / PICTURES for side, taken in times.items()}
    added = medians[chain] - medians[alone]
    print(f"detector and executor, from memory: {medians[alone]:.2f} ms a picture")
    print(f"the same in a pipeline:             {medians[chain]:.2f} ms a picture")
    print(f"added: {added:.2f} ms a picture of {OBJECTS} detections; the aim is {LIMIT_MS:.0f} ms")


if __name__ == "__main__":
    main()

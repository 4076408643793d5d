"""What an element of ``for_each`` costs beside an item of its own, and what memory many take.

python benchmarks/flow.py

The block does nothing, so that what is measured is the engine. Both ways are run by turns in one
process.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam2_blocks import Item, Runner, load_pipeline, load_plugins
from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.values import Image

PICTURES, CROPS = 8, 200
TIMES = 9
MANIFEST = """\
manifest_version: 1
id: bench/nothing@v1
title: Nothing
summary: Gives the size of a picture.
entry: benchmarks.flow:Nothing
inputs: {image: {kind: image, required: true}}
outputs: {width: {kind: integer}}
"""


class Nothing:
    """A block that costs nothing."""

    def __init__(self, resources: Any) -> None:
        pass

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """Give the width."""
        return [{"width": item.image.hw[1]} for item in items]


def pipeline_of(steps: Mapping[str, Any], kinds: Mapping[str, str], plugins: Plugins) -> Pipeline:
    """A pipeline whose output is the width."""
    document = {
        "pipeline_version": 1,
        "inputs": {name: {"kind": kind} for name, kind in kinds.items()},
        "steps": steps,
        "outputs": {"width": "$steps.width.width"},
    }
    return load_pipeline(document, plugins.manifests, plugins.kinds)


def took_ms(pipeline: Pipeline, items: Sequence[Item], plugins: Plugins) -> float:
    """Milliseconds of one run."""
    with Runner(pipeline, plugins) as runner:
        started = time.perf_counter()
        results = list(runner.run(items))
        took = time.perf_counter() - started
    assert not any(result.errors for result in results)
    return 1000 * took


def boxes(count: int, seed: int) -> list[list[float]]:
    """Boxes of 100 to 400 pixels in a picture of 1920x1080."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, (1500, 650), (count, 2)), rng.uniform(100, 400, (count, 2))
    return np.concatenate((corner, corner + size), axis=1).tolist()


def overhead(plugins: Plugins) -> None:
    """Compare elements with items, by turns."""
    parts = [Image(np.zeros((64, 64, 3), np.uint8), str(i)) for i in range(PICTURES * CROPS)]
    one = {"use": "bench/nothing@v1", "with": {"image": "$inputs.image"}}
    each = {"use": "bench/nothing@v1", "with": {"image": "$each"}, "for_each": "$inputs.images"}
    alone = pipeline_of({"width": one}, {"image": "image"}, plugins)
    looped = pipeline_of({"width": each}, {"images": "list of image"}, plugins)
    items = [Item(part.id, {"image": part}) for part in parts]
    lists = [Item(str(i), {"images": parts[i * CROPS : (i + 1) * CROPS]}) for i in range(PICTURES)]
    as_items, as_elements = [], []
    for _ in range(TIMES):
        as_items.append(took_ms(alone, items, plugins))
        as_elements.append(took_ms(looped, lists, plugins))
    item, element = (1000 * statistics.median(ms) / len(parts) for ms in (as_items, as_elements))
    print(f"an item of its own: {item:.1f} us, an element: {element:.1f} us, {element / item:.2f}")


def memory(plugins: Plugins) -> None:
    """Peak of Python's memory while crops of 8 pictures are made and repeated over."""
    steps = {
        "crops": {
            "use": "image/crop@v1",
            "with": {"image": "$inputs.image", "detections": "$inputs.boxes"},
        },
        "width": {"use": "bench/nothing@v1", "with": {"image": "$each"}},
    }
    steps["width"]["for_each"] = "$steps.crops.crops"
    kinds = {"image": "image", "boxes": "object_detection_prediction"}
    pipeline = pipeline_of(steps, kinds, plugins)
    pixels = np.zeros((1080, 1920, 3), np.uint8)
    for count in (1, 20, CROPS):
        found = [rows_to_detections(boxes(count, seed)) for seed in range(PICTURES)]
        items = [
            Item(str(i), {"image": Image(pixels, str(i)), "boxes": boxes})
            for i, boxes in enumerate(found)
        ]
        tracemalloc.start()
        took_ms(pipeline, items, plugins)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"{PICTURES} pictures x {count:3} crops: peak {peak / 2**20:.1f} MiB")


def main() -> None:
    """Print both."""
    plugins = load_plugins(points=[])
    plugins.manifests["bench/nothing@v1"] = load_manifest(MANIFEST, "bench", plugins.kinds)
    overhead(plugins)
    memory(plugins)


if __name__ == "__main__":
    main()

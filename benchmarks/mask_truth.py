"""What it costs to make run lengths of masks whenever they are needed: 100 masks of 1920x1080.

python benchmarks/mask_truth.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import supervision as sv

from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import detections_to_rows
from sam2_blocks.masks.detections import to_detections, to_rles
from sam2_blocks.masks.rle import masks_to_prediction, rle_area
from sam2_blocks.values import MaskPrediction

COUNT, HEIGHT, WIDTH = 100, 1080, 1920
TIMES = 15


def stars() -> MaskPrediction:
    """Shapes with seven arms, 40 to 500 px wide, some of them cut by the border."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    for index in range(COUNT):
        dx, dy = x - rng.uniform(0, WIDTH), y - rng.uniform(0, HEIGHT)
        arms = 1 + 0.2 * np.sin(np.arctan2(dy, dx) * 7 + index)
        masks[index] = np.hypot(dx, dy) < rng.uniform(20, 250) * arms
    return masks_to_prediction(masks)


def use(prediction: MaskPrediction) -> None:
    """What a run does: make detections, filter them by area, write them."""
    found = to_detections(prediction)
    kept = found.select(np.array([rle_area(rle) >= 100 for rle in to_rles(found)]))
    detections_to_rows(kept, DumpOptions(polygons=False))


def median_ms(work: Callable[[], object]) -> float:
    """Median of some runs, in milliseconds."""
    took = []
    for _ in range(TIMES):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def main() -> None:
    """Print one line a figure."""
    prediction = stars()
    found = to_detections(prediction)
    dense = sv.Detections(found.xyxy, mask=found.mask.to_dense())
    figures = {
        "to_detections": lambda: to_detections(prediction),
        "run lengths of all": lambda: to_rles(found),
        "make, filter by area, write rows": lambda: use(prediction),
        "run lengths of full arrays": lambda: to_rles(dense),
    }
    for name, work in figures.items():
        print(f"{name:34}{median_ms(work):6.1f} ms")


if __name__ == "__main__":
    main()

"""What a long run over a folder takes once it is under way: memory, and time beside its stages.

    python -m benchmarks.dataset_steady memory --items 5000
    python -m benchmarks.dataset_steady speed --items 1000
    python -m benchmarks.dataset_steady speed --items 16 --rounds 1 --model sam2.1/hiera_tiny

`memory` prints what the process holds from item 100 on; it may not grow by 3 %.

A run works on three micro-batches at once: threads read one, the model has the next, and the steps
that follow the last one with a model, and what writes, have the one before. `speed` does each of
these alone over all pictures, then all of them as a run does, several times by turns. A run gives
so many pictures a second as its slowest stage alone, but for a tenth, and the same results. Stages
share the cores: where one alone keeps them busy, the processor time of the others comes on top of
it, which is printed beside the speeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any

from ruamel.yaml import YAML

from benchmarks.dataset_kills import PIPELINE, Place
from sam2_blocks import load_plugins, run_pipeline
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item, ItemResult
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executor import load
from sam2_blocks.formats.columns import detections_to_structs
from sam2_blocks.formats.images import MAX_PIXELS
from sam2_blocks.runs.sources.folder import PictureFiles
from sam2_blocks.values import Image

EACH = 100
MOST_GROWTH = 0.03
LEAST_SPEED = 0.9

WHOLE = YAML(typ="safe").load(PIPELINE)
MODEL = {**WHOLE, "steps": {"segment": WHOLE["steps"]["segment"]}}
EXPORT = {
    **WHOLE,
    "inputs": {**WHOLE["inputs"], "found": {"kind": "rle_instance_segmentation_prediction"}},
    "steps": {
        "coco": {
            "use": "export/coco@v1",
            "with": {"image": "$inputs.image", "predictions": "$inputs.found"},
        }
    },
    "outputs": {"masks": "$inputs.found"},
}


def resident_mb() -> float:
    """What this process holds now."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in one]
    return int(line.split()[1]) / 1024


def measure_memory(place: Place) -> None:
    """See that a run holds no more at its end than after item 100.

    What is held moves up and down by some per cent from one micro-batch to the next, with what of
    the heap is free at the moment; growth is that of the line through all of it.

    Raises:
        SystemExit: if it grows.
    """
    held: list[float] = []
    with run_pipeline(place.pipeline, place.pictures, out=place.folder / "memory") as run:
        for count, _ in enumerate(run, start=1):
            held.append(resident_mb())
            if count % EACH == 0:
                print(f"{count - EACH} to {count}: {fmean(held[-EACH:]):.1f} MB", flush=True)
    start, end = line_through(held[EACH:])
    growth = end / start - 1
    print(f"{start:.1f} MB at item {EACH}, {end:.1f} MB at the end: {growth:+.1%}")
    print(f"{max(held):.1f} MB at most")
    if growth >= MOST_GROWTH:
        raise SystemExit("memory grows")


def line_through(values: Sequence[float]) -> tuple[float, float]:
    """Where the straight line that is nearest to some values begins and ends."""
    places = range(len(values))
    slope, start = linear_regression(places, values)
    return start, start + slope * places[-1]


@dataclass(frozen=True)
class Stages:
    """The three stages of a run over the pictures of a place, each by itself.

    Attributes:
        place: pictures, and the whole pipeline.
        resources: the model, loaded once for all.
    """

    place: Place
    resources: Resources

    def read(self) -> list[Image]:
        """Read all pictures, in as many threads as a run has."""
        plugins = load_plugins(points=[])
        model = plugins.load_pipeline(MODEL)
        request = RunRequest(model, plugins, max_pixels=MAX_PIXELS)
        items = list(PictureFiles([str(self.place.pictures)], request).items())
        with ThreadPoolExecutor(4) as readers:
            return list(readers.map(lambda item: item.inputs["image"](), items))

    def find(self, pictures: Sequence[Image]) -> list[ItemResult]:
        """Ask the model alone: pictures are in memory, and nothing is written."""
        return list(run_pipeline(MODEL, iter(pictures), resources=self.resources))

    def write(self, pictures: Sequence[Image], found: Sequence[ItemResult]) -> None:
        """Export and write what was found."""
        items = [
            Item(picture.id, {"image": picture, "found": result.outputs["masks"]})
            for picture, result in zip(pictures, found, strict=True)
        ]
        out = self.place.folder / f"written-{time.monotonic_ns()}"
        for result in run_pipeline(EXPORT, iter(items), out=out, resources=self.resources):
            assert not result.errors

    def run(self) -> list[ItemResult]:
        """Do all of it as a run does."""
        out = self.place.folder / f"run-{time.monotonic_ns()}"
        pipeline, pictures = self.place.pipeline, self.place.pictures
        return list(run_pipeline(pipeline, pictures, out=out, resources=self.resources))


def resources_of(model: str) -> Resources:
    """What stands for ``nano`` in the pipeline: itself, or another network with random weights."""
    if model == "nano":
        return load_plugins(points=[]).resources(pictures_pass=True)
    executor = load(model, device="cpu", seed=0)
    return Resources({"sam2": lambda *_, **__: executor}, pictures_pass=True)


def measure_speed(place: Place, rounds: int, model: str) -> None:
    """See that a run is nearly as fast as its slowest stage, and finds the same.

    Raises:
        SystemExit: if it is not, or does not.
    """
    stages = Stages(place, resources_of(model))
    stages.find(stages.read()[:16])  # loads the model
    seconds: dict[str, list[float]] = {name: [] for name in ("read", "model", "write", "run")}
    busy: dict[str, list[float]] = {name: [] for name in seconds}

    def timed(name: str, work: Callable[..., Any], *given: Any) -> Any:
        began, busy_before = time.perf_counter(), time.process_time()
        result = work(*given)
        seconds[name].append(time.perf_counter() - began)
        busy[name].append(time.process_time() - busy_before)
        return result

    for _ in range(rounds):
        pictures = timed("read", stages.read)
        found = timed("model", stages.find, pictures)
        timed("write", stages.write, pictures, found)
        same = timed("run", stages.run)
        if [rows_of(result) for result in found] != [rows_of(result) for result in same]:
            raise SystemExit("a run finds something else than its stages")
    each = {name: median(of) for name, of in seconds.items()}
    for name, spent in each.items():
        used = median(busy[name])
        print(
            f"{name}: {place.items / spent:.1f} pictures a second, {used / spent:.1f} cores busy, "
            f"{1000 * used / place.items:.1f} ms of processor time each",
            flush=True,
        )
    slowest = max(("read", "model", "write"), key=lambda name: each[name])
    ratio = each[slowest] / each["run"]
    print(f"a run has {ratio:.2f} of the speed of its slowest stage, {slowest}; results are equal")
    if ratio < LEAST_SPEED:
        raise SystemExit(f"wants {LEAST_SPEED}")


def rows_of(result: ItemResult) -> list[Any]:
    """What was found in a picture, exactly."""
    return [result.id, *detections_to_structs(result.outputs["masks"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="of `speed`")
    parser.add_argument("--model", default="nano", help="of `speed`")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), asked.items)
        if asked.what == "memory":
            measure_memory(place)
        else:
            measure_speed(place, asked.rounds, asked.model)


if __name__ == "__main__":
    main()

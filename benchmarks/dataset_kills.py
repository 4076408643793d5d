"""Kill runs over a data set at random moments, resume them, and compare with one whole run.

    python -m benchmarks.dataset_kills --items 5000 --kills 20 --ways folder shards ray --at FOLDER

Each way runs a pipeline with an export on all pictures: `folder` as one process with a folder a
picture, `shards` as two processes side by side with Parquet parts, `ray` with two workers that are
killed by turns. SIGKILL comes at random moments. At the end the results must be those of a run that
nobody disturbed, row for row, and nothing twice; `--ways whole-folder whole-parquet` makes that run
by itself, where all at once would take too long. Pictures are run one by one: scores of a picture
differ in the last digit with the number of those beside it, and after a death that is another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

PIPELINE = """\
pipeline_version: 1
inputs:
  image: {kind: image}
steps:
  segment:
    use: sam2/segment@v1
    with: {image: $inputs.image, boxes: [[4, 4, 40, 40], [30, 8, 60, 44]]}
  coco:
    use: export/coco@v1
    with: {image: $inputs.image, predictions: $steps.segment.predictions}
outputs:
  masks: $steps.segment.predictions
"""
PARQUET = ("--format", "parquet")
ONE = ("--batch-size", "1")
PART_S = 3.0
"""Parts are closed so often here, so that runs of seconds leave some."""

CHILD = f"""\
import sys
from sam2_blocks.runs.sinks import parquet
parquet.PART_S = {PART_S}
from sam2_blocks.cli import main
sys.argv = ["sam2-blocks", *sys.argv[1:]]
main()
"""


class Place:
    """A folder with pictures, a pipeline, and the results of every way.

    Args:
        folder: made if it is not there.
        items: number of pictures.
        seed: of the pictures and the moments.
    """

    def __init__(self, folder: Path, items: int, seed: int = 0) -> None:
        self.folder = folder
        self.items = items
        self.random = random.Random(seed)
        self.pipeline = folder / "pipeline.yaml"
        self.pictures = folder / "in"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.pipeline.write_text(PIPELINE)
        pixels = np.random.default_rng(seed)
        for number in range(items):
            path = self.pictures / f"{number:05}.png"
            if not path.exists():
                small = pixels.integers(0, 255, (6, 8, 3), dtype=np.uint8)
                whole = path.with_suffix(".part")
                Pil.fromarray(small).resize((64, 48)).save(whole, "PNG")
                whole.replace(path)

    def command(self, out: str, *more: str) -> list[str]:
        """The run into one folder, as a program."""
        program = [sys.executable, "-c", CHILD, "run", str(self.pipeline)]
        return [*program, "-i", str(self.pictures), "-o", str(self.folder / out), "-q", *ONE, *more]

    def start(self, out: str, *more: str) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(self.command(out, *more), stdout=subprocess.DEVNULL)

    def finish(self, out: str, *more: str) -> None:
        """Let it come to its end."""
        subprocess.run(self.command(out, "--resume", *more), check=True, stdout=subprocess.DEVNULL)


def kill_at_random(place: Place, runs: Sequence[tuple[str, ...]], kills: int, most_s: float) -> int:
    """Run all at once, and kill one of them at each of many moments; it is resumed.

    Returns:
        How many were alive when they were killed.
    """
    processes = {run: place.start(*run) for run in runs}
    done = 0
    while done < kills and processes:
        time.sleep(place.random.uniform(0, most_s))
        run = place.random.choice(list(processes))
        if processes[run].poll() is None:
            processes[run].kill()
            done += 1
        elif processes[run].returncode == 0:
            del processes[run]
            continue
        processes[run].wait()
        processes[run] = place.start(*run)
    for process in processes.values():
        process.wait()
    for run in runs:
        place.finish(*run)
    return done


def run_folder(place: Place, kills: int, most_s: float) -> int:
    """One process, a folder a picture."""
    return kill_at_random(place, [("folder", "--resume")], kills, most_s)


def run_shards(place: Place, kills: int, most_s: float) -> int:
    """Two processes side by side."""
    runs = [("shards", "--resume", "--shard", f"{number}/2") for number in (1, 2)]
    return kill_at_random(place, runs, kills, most_s)


def run_ray(place: Place, kills: int, most_s: float) -> int:
    """Two workers on Ray; the launcher replaces those that are killed."""
    from sam2_blocks.hosts.ray import RayOptions, run_on_ray

    done, until = 0, time.monotonic() + place.random.uniform(0, most_s)
    options = RayOptions(workers=2, gpus_per_worker=0)
    inputs, out = [str(place.pictures)], place.folder / "ray"
    run = run_on_ray(place.pipeline, inputs, out, options, batch_size=1)
    with one_thread(), run:
        for _ in run:
            workers = [task.process[0] for task in run._tasks if task.process[0]]
            if done < kills and workers and time.monotonic() > until:
                os.kill(place.random.choice(workers), signal.SIGKILL)
                until = time.monotonic() + place.random.uniform(0, most_s)
                done += 1
    return done


WAYS = {"folder": run_folder, "shards": run_shards, "ray": run_ray}


def results_of(folder: Path) -> dict[str, Any]:
    """Everything that a run wrote, but when and by whom."""
    if list(folder.glob("manifest-*.json")):
        return {"rows": list(_rows(folder)), "coco": list(_images(folder))}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files
            if path.name != ".finished.jsonl"}  # fmt: skip


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    from sam2_blocks.runs.merge import merge_parts

    yield from pq.read_table(merge_parts(folder, "parquet").path).to_pylist()


def _images(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Pictures of all COCO parts, each with its annotations without their numbers."""
    found = []
    for path in folder.glob("coco*.json"):
        content = json.loads(path.read_text())
        rows: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        for row in content["annotations"]:
            own = {key: value for key, value in row.items() if key not in ("id", "image_id")}
            rows[row["image_id"]].append(own)
        found += [(image["file_name"], rows[image["id"]]) for image in content["images"]]
    yield from sorted(found, key=lambda pair: pair[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Give processes that are started the one thread that workers of Ray have here.

    Scores differ in the last digit with the number of threads.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def run_whole(place: Place, form: str) -> str:
    """The run that nobody disturbs; what is there of it already is kept."""
    out = f"whole-{form}"
    place.finish(out, *(() if form == "folder" else PARQUET))
    return out


def compare(place: Place, way: str) -> None:
    """See that a way's results are those of the run that nobody disturbed.

    Raises:
        SystemExit: if they are not.
    """
    form = {"folder": "folder", "shards": "parquet", "ray": "ray"}[way]
    with one_thread() if way == "ray" else nullcontext():
        whole = run_whole(place, form)
    expected, found = results_of(place.folder / whole), results_of(place.folder / way)
    if found != expected:
        differing = [key for key in expected if found.get(key) != expected[key]]
        raise SystemExit(f"{way}: differs in {differing[:5] or 'what is too much'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most-s", type=float, default=40.0, help="longest time between kills")
    ways = [*WAYS, "whole-folder", "whole-parquet", "whole-ray"]
    parser.add_argument("--ways", nargs="+", choices=ways, default=["folder", "shards"])
    parser.add_argument("--at", type=Path, required=True, help="folder to work in")
    asked = parser.parse_args()
    place = Place(asked.at, asked.items)
    for way in asked.ways:
        started = time.monotonic()
        if way not in WAYS:
            with one_thread() if way == "whole-ray" else nullcontext():
                run_whole(place, way.removeprefix("whole-"))
            print(f"{way}: {time.monotonic() - started:.0f} s", flush=True)
            continue
        kills = WAYS[way](place, asked.kills, asked.most_s)
        compare(place, way)
        seconds = time.monotonic() - started
        print(
            f"{way}: {kills} kills, {asked.items} items equal one run, {seconds:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()

"""Random lives of an output folder: runs that are killed, pictures that change, runs that resume.

    python -m benchmarks.resume_histories [--minutes 15] [--seed 0]

Each history begins with a folder of small pictures with boxes beside them. A few times over, a run
into one output folder is let finish, killed or interrupted at a random moment; then pictures come,
go, break, or change with their boxes. When the last run has been resumed to its end, its folder has
to hold what a fresh run over the same pictures writes, byte for byte. An item that twice was alone
in a killed run is set aside, as it cannot know that the kill came from outside; the last run tries
it again, as its user would, and their number is printed. The model is a stand-in that fills boxes,
and runs are forked, so that a second holds a few of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PilImage

from sam2_blocks import load_plugins, run_pipeline
from sam2_blocks.engine.resources import Resources
from sam2_blocks.runs.flight import MOST_DEATHS
from sam2_blocks.testing import FakeExecutor

HW = (40, 60)
CLASSES = ("zebra", "dog", "ant", "cat", "moth")
OWN_FILES = frozenset({".finished.jsonl", ".lock"})
"""What a run keeps for itself: in the order in which items were finished."""


def _export(block: str) -> dict[str, Any]:
    sockets = {"image": "$inputs.image", "predictions": "$steps.find.predictions"}
    return {"use": block, "with": sockets}


PIPELINE: dict[str, Any] = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}},
    "steps": {
        "boxes": {
            "use": "detections/load@v1",
            "with": {"image": "$inputs.image", "classes": [*CLASSES]},
        },
        "find": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$steps.boxes.detections"},
        },
        "coco": _export("export/coco@v1"),
        "yolo": _export("export/yolo@v1"),
        "labelme": _export("export/labelme@v1"),
        "masks": _export("export/masks@v1"),
    },
    "outputs": {"predictions": "$steps.find.predictions"},
}


class Pictures:
    """A folder of pictures with Labelme boxes beside them, and what may happen to it.

    Args:
        folder: where they are.
        chance: decides.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self._chance = chance
        self._count = 0
        for _ in range(chance.randint(6, 24)):
            self.add()

    def add(self) -> None:
        """Put a new picture there, sometimes into a folder of its own, with boxes."""
        self._count += 1
        place = self._chance.choice(["", "", "", "more/", "more/deep/"])
        self._write(self.folder / f"{place}{self._chance.choice('abc')}{self._count}.png")

    def edit(self) -> None:
        """Let a few things happen."""
        for _ in range(self._chance.randint(0, 4)):
            self._chance.choice(
                [self.add, self._remove, self._change, self._relabel, self._break]
            )()

    def _all(self) -> list[Path]:
        return sorted(self.folder.rglob("*.png"))

    def _remove(self) -> None:
        if len(self._all()) > 3:
            picture = self._chance.choice(self._all())
            picture.unlink()
            picture.with_suffix(".json").unlink()

    def _change(self) -> None:
        self._write(self._chance.choice(self._all()))

    def _relabel(self) -> None:
        self._write_boxes(self._chance.choice(self._all()))

    def _break(self) -> None:
        self._chance.choice(self._all()).write_bytes(b"no picture any more")

    def _write(self, picture: Path) -> None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((*HW, 3), self._chance.randrange(256), np.uint8)
        PilImage.fromarray(pixels).save(picture)
        self._write_boxes(picture)

    def _write_boxes(self, picture: Path) -> None:
        shapes = [self._shape() for _ in range(self._chance.randint(0, 3))]
        height, width = HW
        size = {"imagePath": picture.name, "imageHeight": height, "imageWidth": width}
        picture.with_suffix(".json").write_text(json.dumps({"shapes": shapes, **size}))

    def _shape(self) -> dict[str, Any]:
        x, y = self._chance.randint(0, 30), self._chance.randint(0, 20)
        label = self._chance.choice(CLASSES)
        corners = [[x, y], [x + self._chance.randint(3, 25), y + self._chance.randint(3, 18)]]
        return {"label": label, "shape_type": "rectangle", "points": corners}


def start_run(pictures: Path, out: Path, *, resume: bool, retry: bool = False) -> int:
    """Start a run in a child and return its process id."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 1
    try:
        _run(pictures, out, resume=resume, retry=retry)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:  # told to the parent, whatever it is
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(status)


def _run(pictures: Path, out: Path, *, resume: bool, retry: bool) -> None:
    plugins = load_plugins(strict=True, points=[])
    resources = Resources({"sam2": FakeExecutor}, out)
    run = run_pipeline(
        PIPELINE, pictures, out=out, resume=resume, retry_set_aside=retry, batch_size=2,
        plugins=plugins, resources=resources,
    )  # fmt: skip
    for _ in run:
        time.sleep(0.002)  # a model's work, so that signals come while there is some


def wait(child: int) -> int:
    """Return the exit status of a child; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an output folder but those that a run keeps for itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OWN_FILES
    }


def count_set_aside(out: Path) -> int:
    """How many items the next run would leave alone, because they seem to kill it."""
    note = out / ".flying.json"
    suspects = json.loads(note.read_text())["suspects"] if note.is_file() else {}
    return sum(suspect["deaths"] >= MOST_DEATHS for suspect in suspects.values())


class Life(NamedTuple):
    """What came of a history: how its runs ended, how many items had been set aside, which files
    are not those of a fresh run, and for how long that one ran."""

    ends: Counter[str]
    set_aside: int
    differing: list[str]
    whole_s: float


def live(seed: int, root: Path, whole_s: float) -> Life:
    """Let one history happen.

    Args:
        seed: of all that happens.
        root: an empty folder.
        whole_s: about how long a run takes, so that it can be killed within.
    """
    chance = random.Random(seed)
    pictures, out, ends = Pictures(root / "in", chance), root / "out", Counter[str]()
    for number in range(chance.randint(1, 5)):
        if number:
            pictures.edit()
        child = start_run(root / "in", out, resume=number > 0)
        if chance.random() < 0.85:
            time.sleep(chance.uniform(0, 1.2 * whole_s))
            os.kill(child, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
        ends[str(wait(child))] += 1
    pictures.edit()
    set_aside = count_set_aside(out)
    ended = wait(start_run(root / "in", out, resume=True, retry=True))
    started = time.monotonic()
    fresh_ended = wait(start_run(root / "in", root / "fresh", resume=False))
    whole_s = time.monotonic() - started
    if ended or fresh_ended:
        differing = [f"runs to the end ended with {ended} and {fresh_ended}"]
        return Life(ends, set_aside, differing, whole_s)
    ours, fresh = contents(out), contents(root / "fresh")
    for failure in json.loads(fresh.get("errors.json", "[]")):
        if failure["step"] != "inputs":  # those are the broken pictures
            return Life(ends, set_aside, [f"a step failed: {failure}"], whole_s)
    differing = sorted(n for n in ours.keys() | fresh.keys() if ours.get(n) != fresh.get(n))
    return Life(ends, set_aside, differing, whole_s)


def main() -> None:
    """Live as many histories as fit, and fail if one is unlike a fresh run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--count", type=int, help="how many histories, whatever the minutes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong, set_aside, whole_s, ends = 0, 0, 0.5, Counter[str]()
    for seed in _seeds(given.seed, given.count, given.minutes):
        with tempfile.TemporaryDirectory() as root:
            life = live(seed, Path(root), whole_s)
        ends, whole_s = ends + life.ends, life.whole_s
        wrong, set_aside = wrong + bool(life.differing), set_aside + life.set_aside
        if life.differing:
            print(f"seed {seed}: {life.differing[:8]}", flush=True)
    lived = seed + 1 - given.seed
    print(f"{lived} histories, {wrong} unlike a fresh run; their runs ended: {dict(ends)}")
    print(f"{set_aside} items were set aside before the last run and tried again in it")
    sys.exit(bool(wrong))


def _seeds(first: int, count: int | None, minutes: float) -> Iterator[int]:
    until = time.monotonic() + minutes * 60
    for number in itertools.count():
        if number == count or (count is None and number and time.monotonic() > until):
            return
        yield first + number


if __name__ == "__main__":
    main()

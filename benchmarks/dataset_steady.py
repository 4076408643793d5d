"""What a long run over a folder takes once it is under way: memory, and time beside its stages.

    python -m benchmarks.dataset_steady --items 5000 memory
    python -m benchmarks.dataset_steady --items 400 speed

`memory` prints what the process holds at item 100 and the most after it, which may not be 3 % more.

`speed` runs each stage of the same work alone, one after another, over all pictures: reading, the
encoder, the decoder, the rest of the steps, and writing. Then it runs all of it as a run does, and
compares the pictures a second with those of the slowest stage, and the results with those of a run
of one picture at a time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean

from benchmarks.dataset_kills import Place
from sam2_blocks import run_pipeline

FIRST = 100
MOST_GROWTH = 0.03


def resident_mb() -> float:
    """What this process holds now."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in one]
    return int(line.split()[1]) / 1024


def measure_memory(place: Place) -> None:
    """See that a run holds no more at its end than after item 100.

    What is held moves up and down with what is under way, so means of a hundred items are compared.

    Raises:
        SystemExit: if it does.
    """
    held: list[float] = []
    with run_pipeline(place.pipeline, place.pictures, out=place.folder / "memory") as run:
        for _ in run:
            held.append(resident_mb())
    means = [fmean(held[n : n + FIRST]) for n in range(FIRST, len(held), FIRST)]
    for number, mean in enumerate(means[:: max(1, len(means) // 10)], start=1):
        print(f"{number}: {mean:.1f} MB")
    print(f"{means[-1]:.1f} MB in the last hundred items")
    growth = max(means) / means[0] - 1
    print(
        f"{means[0]:.1f} MB in items {FIRST} to {2 * FIRST}, at most "
        f"{max(means):.1f} MB ({growth:+.1%}; may be {MOST_GROWTH:.0%})"
    )
    if growth >= MOST_GROWTH:
        raise SystemExit("memory grows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("--items", type=int, default=5000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), asked.items)
        measure_memory(place)


if __name__ == "__main__":
    main()

"""What Ray costs beside two processes: the same pictures, the same parts, on one machine.

    python -m benchmarks.dataset_ray --items 300

Two workers on Ray, and two `--shard` processes side by side, run over few pictures and over many,
by turns. What the many take longer is the work after start-up; Ray's may be 20 % more. Each process
has one thread, as Ray gives it: with another number of them scores differ in the last digit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.dataset_kills import Place, results_of

FEW = 40
MOST_OVERHEAD = 0.2


def run_shards(place: Place, out: str) -> None:
    """Two processes side by side."""
    both = [place.start(out, "--shard", f"{number}/2") for number in (1, 2)]
    codes = [process.wait() for process in both]
    if any(codes):
        raise SystemExit("a shard failed")


def run_ray(place: Place, out: str) -> None:
    """Two workers, with the command that people use."""
    command = place.command(out, "--on", "ray", "--workers", "2", "--gpus-per-worker", "0")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


WAYS: dict[str, Callable[[Place, str], None]] = {"shards": run_shards, "ray": run_ray}


def seconds_of(way: str, place: Place) -> float:
    """How long a way takes from its start to its end."""
    shutil.rmtree(place.folder / way, ignore_errors=True)
    began = time.perf_counter()
    WAYS[way](place, way)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        few, many = Place(Path(folder) / "few", FEW), Place(Path(folder) / "many", asked.items)
        spent: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way, rounds in spent.items():
                start, whole = seconds_of(way, few), seconds_of(way, many)
                rounds.append(whole - start)
                print(
                    f"{way}: {start:.1f} s for {FEW}, {whole:.1f} s for {asked.items}", flush=True
                )
        found, expected = (results_of(many.folder / way) for way in ("ray", "shards"))
        if found != expected:
            pairs = zip(found["rows"], expected["rows"], strict=True)
            differing = sum(one != other for one, other in pairs)
            raise SystemExit(f"the results differ, in {differing} rows")
    overhead = median(spent["ray"]) / median(spent["shards"]) - 1
    print(f"Ray takes {overhead:+.0%} after start-up; results are equal")
    if overhead >= MOST_OVERHEAD:
        raise SystemExit(f"wants less than {MOST_OVERHEAD:.0%}")


if __name__ == "__main__":
    main()

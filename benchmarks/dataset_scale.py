"""What a million items cost where there is no work in them: listing, journal, manifest.

    python -m benchmarks.dataset_scale --items 1000000

Lists the ids of a table, notes items in a journal, and rows in the manifest of a shard: the time of
each in the first tenth and in the last, which may not grow, and the most memory of the process, of
which each has one of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sam2_blocks import load_plugins
from sam2_blocks.engine.places import RunRequest, Shard
from sam2_blocks.runs.journal import Journal
from sam2_blocks.runs.opening import open_source
from sam2_blocks.runs.shards import Manifest, ShardFiles
from sam2_blocks.runs.sinks.parquet import PART_ROWS
from sam2_blocks.runs.stores import open_store

PIPELINE = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}},
    "steps": {
        "turn": {"use": "image/rotate@v1", "with": {"image": "$inputs.image", "degrees": 90}}
    },
    "outputs": {"image": "$steps.turn.image"},
}
TABLES = ("csv", "jsonl", "parquet")
PIECES = 10


def make_request(out: Path) -> RunRequest:
    """A run that is only described."""
    plugins = load_plugins(points=[])
    return RunRequest(plugins.load_pipeline(PIPELINE), plugins, out=out)


def write_table(path: Path, items: int) -> None:
    """A table with an id and a picture a row."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [f"folder/{number:07}.jpg" for number in range(items)]
        pq.write_table(pa.table({"id": names, "image": names}), path)  # all in one row group
        return
    with path.open("w") as file:
        file.write("id,image\n" if path.suffix == ".csv" else "")
        for number in range(items):
            name = f"folder/{number:07}.jpg"
            as_json = json.dumps({"id": name, "image": name})
            file.write(f"{name},{name}\n" if path.suffix == ".csv" else f"{as_json}\n")


def list_ids(path: Path, request: RunRequest, items: int) -> Iterator[Callable[[], None]]:
    """List the ids of a table, and keep them."""
    ids: list[str] = []
    source = open_source(str(path), request)
    listed = source.items()

    def piece() -> None:
        ids.extend(next(listed).id for _ in range(items // PIECES))

    yield from [piece] * PIECES


def note_in_journal(folder: Path, request: RunRequest, items: int) -> Iterator[Callable[[], None]]:
    """Note items that are finished, each with a file."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, request, "these")
    journal.start()
    numbers = iter(range(items))

    def piece() -> None:
        for _ in range(items // PIECES):
            name = f"folder/{next(numbers):07}.jpg"
            journal.add(name, "1 2", [folder / name / "image.png"])

    yield from [piece] * PIECES


def add_parts(folder: Path, items: int) -> Iterator[Callable[[], None]]:
    """Write so many small parts as items would make."""
    folder.mkdir(exist_ok=True)
    files = ShardFiles(open_store(folder), Shard())
    files.take(Manifest(run={}))

    def piece() -> None:
        for _ in range(items // PIECES // PART_ROWS):
            files.add(b"rows", PART_ROWS)
            files.save()

    yield from [piece] * PIECES


def measure(name: str, items: int, pieces: Iterator[Callable[[], None]]) -> None:
    """Print what each tenth took, of the first, the last and all."""
    spent = []
    cpu = time.process_time()
    for piece in pieces:
        began = time.perf_counter()
        piece()
        spent.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    memory = most_memory_mb()
    total, tenth = sum(spent), items / PIECES
    first, last = (1e6 * seconds / tenth for seconds in (spent[0], spent[-1]))
    print(
        f"{name}: {items} in {total:.1f} s, {cpu:.1f} s of it computing; {first:.1f} us each in "
        f"the first tenth, {last:.1f} us in the last; most memory of the process {memory:.0f} MB",
        flush=True,
    )


def most_memory_mb() -> float:
    """Most memory that this process had; `getrusage` would take in that of who started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    [line] = [one for one in status.read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def run_part(part: str, folder: Path, items: int) -> None:
    """Measure one part, or write a table for one."""
    request = make_request(folder / "out")
    what, _, ending = part.partition(" ")
    if what == "write":
        write_table(folder / f"all.{ending}", items)
    elif what == "journal":
        measure(what, items, note_in_journal(folder / what, request, items))
    elif what == "parts":
        measure(what, items, add_parts(folder / what, items))
    else:
        measure(what, items, list_ids(folder / f"all.{what}", request, items))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", default=[*TABLES, "journal", "parts"])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        run_part(asked.part, asked.at, asked.items)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            for part in [f"write {name}", name] if name in TABLES else [name]:
                program = [sys.executable, "-m", "benchmarks.dataset_scale", "--part", part]
                program += ["--at", folder, "--items", str(asked.items)]
                subprocess.run(program, check=True)


if __name__ == "__main__":
    main()

"""Tracking beside the official video predictor: ``python -m benchmarks video [options]``.

Every run is a process of its own, so that memory is its own; runs of peers alternate, and the
fastest of each counts. Time is that of the whole clip, from JPEGs to run lengths, by frame: of the
clock, and of the processors, which a busy machine disturbs less. Memory is how much the process
grew from before the clip to where it was largest. Each peer has followed a short clip before, of
eight frames where the clip has 40 or more: so every thread has computed, and what is set up once,
and does not grow with a clip, counts for none.

    python -m benchmarks video                         # nano, 1 and 10 objects, two threads
    python -m benchmarks video --frames 500 --objects 1 --repeats 1 --name video-memory
    python -m benchmarks video --models sam2.1/hiera_tiny --frames 16 --objects 1 --stages
    python -m benchmarks video --flat 2000 --objects 1 --name video-flat   # our memory
    python -m benchmarks video --models sam2.1/hiera_tiny sam2.1/hiera_large --device cuda
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageDraw
from pycocotools import mask as coco_mask

from benchmarks.measure import environment
from benchmarks.video_peers import BACKENDS, CLIP, EXACT, PREPARE, TRACKERS, missing
from benchmarks.video_stages import timed
from sam2_blocks.executor import load_executor
from sam2_blocks.formats.video import VideoFile
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, PromptSet

MOST_FLIPPED = 1e-5  # of all pixels, for peers that claim to be the official one
SIZE_WH = (640, 480)
FIRST = "first"  # folder of the clip that is followed before the clock starts
FIRST_FRAMES = 8
FLAT_GROWTH = 0.02
RESULTS = Path(__file__).parent / "results"

Masks = list[list[str]]
"""Compressed COCO run lengths, by frame and object."""


def main(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if options.peer:
        print(json.dumps(_run_peer(options)))
        return 0
    if options.flat:
        return _check_flat(options)
    rows = list(_compare(options))
    _save(options, rows)
    return 1 if any(row["flipped_px"] > MOST_FLIPPED for row in rows if row["peer"] in EXACT) else 0


def _save(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    document = {"environment": environment(options.device), "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks video", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["nano"], help="random weights, but for nano")
    add("--objects", nargs="+", type=int, default=[1, 10])
    add("--frames", type=int, default=48)
    add("--repeats", type=int, default=3)
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--flat", type=int, default=0, metavar="FRAMES", help="check that memory does not grow")
    add("--name", default="video", help="of the file under benchmarks/results")
    add("--peers", nargs="+", choices=TRACKERS, default=list(TRACKERS))
    add("--stages", action="store_true", help="say where our time goes, too")
    add("--peer", choices=TRACKERS, help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _compare(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every case with every peer in turn, and print a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder), options.frames)
        write_clip(Path(folder, FIRST), max(1, min(FIRST_FRAMES, options.frames // 5)))
        for model in options.models:
            for objects in options.objects:
                yield from _compare_case(options, folder, model, objects)


def _compare_case(
    options: argparse.Namespace, folder: str, model: str, objects: int
) -> Iterator[dict[str, Any]]:
    peers = [peer for peer in options.peers if not missing(peer, model)]
    for peer in set(options.peers) - set(peers):
        print(f"{peer} {missing(peer, model)}", file=sys.stderr)
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for _ in range(options.repeats):
        for peer in peers:
            runs[peer].append(_spawn(options, peer, folder, model, objects))
    best = {peer: min(found, key=lambda run: run["ms"]) for peer, found in runs.items()}
    for peer in peers:
        row = {
            "model": model,
            "objects": objects,
            "frames": options.frames,
            "peer": peer,
            "ms_a_frame": round(best[peer]["ms"], 2),
            "all_ms": [round(run["ms"], 2) for run in runs[peer]],
            "cpu_ms_a_frame": round(best[peer]["cpu_ms"], 2),
            "times_official": round(best["official"]["ms"] / best[peer]["ms"], 3),
            "times_official_cpu": round(best["official"]["cpu_ms"] / best[peer]["cpu_ms"], 3),
            "grew_mib": round(best[peer]["grew"] / 2**20, 1),
            "of_official_memory": round(best[peer]["grew"] / best["official"]["grew"], 4),
            **_agreement(best["official"]["masks"], best[peer]["masks"]),
            **({"stages": best[peer]["stages"]} if best[peer]["stages"] else {}),
        }
        print(json.dumps(row))
        yield row


def _spawn(
    options: argparse.Namespace, peer: str, folder: str, model: str, objects: int
) -> dict[str, Any]:
    words = ["--peer", peer, "--folder", folder, "--models", model, "--objects", str(objects)]
    words += ["--device", options.device, "--threads", str(options.threads)]
    words += ["--frames", str(options.frames), *(["--stages"] if options.stages else [])]
    command = [sys.executable, "-m", "benchmarks.video", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _agreement(official: Masks, found: Masks) -> dict[str, Any]:
    """Say how many masks are equal, and how many pixels of all flipped."""
    pairs = [pair for rows in zip(official, found, strict=True) for pair in zip(*rows, strict=True)]
    pixels = SIZE_WH[0] * SIZE_WH[1]
    flipped = sum(int((_decode(a) != _decode(b)).sum()) for a, b in pairs if a != b)
    return {
        "equal_masks": f"{sum(a == b for a, b in pairs)} of {len(pairs)}",
        "flipped_px": flipped / (len(pairs) * pixels),
    }


def _decode(counts: str) -> np.ndarray:
    decoded: np.ndarray = coco_mask.decode({"size": [SIZE_WH[1], SIZE_WH[0]], "counts": counts})
    return decoded


def _run_peer(options: argparse.Namespace) -> dict[str, Any]:
    """Track one clip with one peer in this process."""
    torch.set_num_threads(options.threads)
    executor = load_executor(
        options.models[0],
        device=options.device,
        seed=None if options.models[0] == "nano" else 0,
        backend=BACKENDS.get(options.peer, "torch"),
    )
    boxes = np.array([box_of(k, 0) for k in range(options.objects[0])], np.float32)
    track, stages = TRACKERS[options.peer], options.stages and options.peer in EXACT
    executor.warm_up()
    PREPARE.get(options.peer, lambda _: None)(executor)
    list(track(executor, Path(options.folder, FIRST), boxes))
    before, clock, processors = resident_bytes(), time.perf_counter(), time.process_time()
    with timed(executor) if stages else nullcontext({}) as spent:
        masks, most = [], before
        for found in track(executor, Path(options.folder), boxes):
            masks.append(found)
            most = max(most, resident_bytes())
    return {
        "ms": 1000 * (time.perf_counter() - clock) / len(masks),
        "cpu_ms": 1000 * (time.process_time() - processors) / len(masks),
        "grew": most - before,
        "masks": masks,
        "stages": {name: round(1000 * s / len(masks), 2) for name, s in spent.items()},
    }


def _check_flat(options: argparse.Namespace) -> int:
    """Follow objects through many frames of one clip, over and over, and watch the process."""
    torch.set_num_threads(options.threads)
    executor = load_executor(options.models[0], device=options.device)
    objects = options.objects[-1]
    prompts = PromptSet.from_boxes([box_of(k, 0) for k in range(objects)])
    frames = (Image(np.asarray(draw_frame(number % 40))) for number in range(options.flat))
    with executor.track() as session:
        held = [resident_bytes() for _ in track_frames(session, frames, prompts)]
        remembered = session.nbytes
    growth = max(held[100:]) / held[100] - 1
    row = {
        "model": options.models[0],
        "frames": options.flat,
        "objects": objects,
        "rss_mib_at_100": round(held[100] / 2**20, 1),
        "rss_mib_at_end": round(held[-1] / 2**20, 1),
        "growth_after_100": round(growth, 4),
        "remembered_kib_an_object": round(remembered / objects / 1024, 1),
    }
    print(json.dumps(row))
    _save(options, [row])
    return 1 if growth > FLAT_GROWTH else 0


def resident_bytes() -> int:
    """Memory of this process, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def write_clip(folder: Path, frames: int) -> None:
    """Write squares that move at their own pace, as JPEGs and as a video."""
    folder.mkdir(exist_ok=True)
    video = VideoFile(folder / CLIP)
    for number in range(frames):
        frame = draw_frame(number)
        frame.save(folder / f"{number:05d}.jpg", quality=95)
        video.add(np.asarray(frame))
    video.close()


def draw_frame(number: int) -> Pil.Image:
    """Draw one frame of the clip."""
    picture = Pil.new("RGB", SIZE_WH, (60, 90, 60))
    pen = ImageDraw.Draw(picture)
    for k in range(10):
        pen.rectangle(tuple(box_of(k, number)), fill=(25 * k, 200 - 15 * k, 255 - 25 * k))
    return picture


def box_of(k: int, frame: int) -> list[float]:
    """Box of the k-th square on a frame, xyxy."""
    x, y = 20 + 60 * k + (k % 3 + 1) * frame % 70, 40 + 38 * k + frame % 50
    return [x % 560, y % 400, x % 560 + 60, y % 400 + 52]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What is measured: each scenario yields rows, each row a peer and how equal its masks are."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage

from benchmarks.measure import (
    Equality,
    Timing,
    available_bytes,
    compare,
    peak_extra_mb,
    time_interleaved,
)
from benchmarks.peers import PEERS, Official, Ours
from benchmarks.scenes import Scene, make_picture, make_scene
from sam2_blocks.executor import load
from sam2_blocks.executor.executor import Sam2Executor
from sam2_blocks.values import Embedding, Image

SIZES_HW = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}
SEED = 0


@dataclass(frozen=True)
class Settings:
    """How to run; see ``python -m benchmarks --help``."""

    model: str
    device: str
    dtype: str
    runs: int
    warmups: int
    sizes: tuple[str, ...]
    counts: tuple[int, ...]
    pictures: int


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        scenario: name of the function here.
        case: what was varied, such as ``1080p x 100 small``.
        peer: who did it.
        timing: None for rows of memory alone, and for peers that were skipped.
        peak_mb: extra memory at its peak.
        equality: against the official masks; None for the official peer itself.
        ratio: official median over this one; above 1 is faster (or smaller, for memory).
        note: why a peer was skipped, or what else to know.
    """

    scenario: str
    case: str
    peer: str
    timing: Timing | None = None
    peak_mb: float | None = None
    equality: Equality | None = None
    ratio: float | None = None
    note: str = ""


def boxes(settings: Settings) -> Iterator[Row]:
    """Cached embedding and boxes to COCO run lengths: decoder and everything after it."""
    executor = _executor(settings)
    for case, scene in _scenes(settings):
        embedding = _embedding(executor, scene.image_hw)
        jobs = {peer.name: partial(peer(executor).from_boxes, embedding, scene) for peer in PEERS}
        yield from _rows("boxes", case, jobs, settings, needed=_official_bytes(scene))


def rle(settings: Settings) -> Iterator[Row]:
    """Low-resolution logits to COCO run lengths: what comes after the decoder, alone."""
    executor = _executor(settings)
    for case, scene in _scenes(settings):
        jobs = {peer.name: partial(peer(executor).from_logits, scene) for peer in PEERS}
        yield from _rows("rle", case, jobs, settings, needed=_official_bytes(scene))


def click(settings: Settings) -> Iterator[Row]:
    """One point on a picture whose embedding is at hand: what an annotator waits for."""
    executor = _executor(settings)
    for name in settings.sizes:
        scene = make_scene(SIZES_HW[name], 1, "small")
        embedding = _embedding(executor, scene.image_hw)
        jobs = {
            peer.name: partial(peer(executor).from_boxes, embedding, scene)
            for peer in (Official, Ours)
        }
        yield from _rows("click", f"{name} x 1", jobs, settings)


def folder(settings: Settings) -> Iterator[Row]:
    """JPEG files with ten boxes each, nothing cached, ``nano`` and its own masks end to end."""
    executor = load("nano", device=settings.device, dtype=settings.dtype, cache_bytes=0)
    height, width = SIZES_HW["1080p"]
    scene = make_scene((height, width), 10, "small")
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / f"{i}.jpg" for i in range(settings.pictures)]
        for seed, path in enumerate(files):
            PilImage.fromarray(make_picture((height, width), seed)).save(path, quality=90)
        jobs = {
            peer.name: partial(_segment_files, peer(executor), files, scene.boxes_xyxy)
            for peer in (Official, Ours)
        }
        case = f"{settings.pictures} x 1080p x 10"
        yield from _rows("folder", case, jobs, settings)


def memory(settings: Settings) -> Iterator[Row]:
    """Peak memory above model, embedding and logits."""
    for scenario in ("from_logits", "from_boxes"):
        for name in settings.sizes:
            scene = make_scene(SIZES_HW[name], 1, "small")
            count = max(settings.counts)
            case = f"{name} x {count} {scenario.replace('_', ' ')}"
            official: float | None = None
            for peer in PEERS:
                if peer is Official and count * _official_bytes(scene) > available_bytes():
                    yield Row("memory", case, peer.name, note="skipped: too little memory here")
                    continue
                peak = peak_extra_mb(prepare_job, settings, peer.__name__, scenario, name, count)
                official = peak if peer is Official else official
                ratio = official / max(peak, 1.0) if official else None
                yield Row("memory", case, peer.name, peak_mb=peak, ratio=ratio)


def cold(settings: Settings) -> Iterator[Row]:
    """A fresh interpreter to its first mask: imports, model, first picture."""
    script = (
        "import numpy as np; from sam2_blocks.executor import load;"
        "from sam2_blocks.values import Image, PromptSet;"
        f"e = load({settings.model!r}, device={settings.device!r}, seed={SEED});"
        "i = e.embed([Image(np.zeros((480, 640, 3), np.uint8))])[0];"
        "e.segment([(i, PromptSet.from_boxes([[9, 9, 99, 99]]))])"
    )
    walls = []
    for _ in range(settings.runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], check=True)
        walls.append(time.perf_counter() - start)
    yield Row("cold", "VGA x 1", Ours.name, timing=Timing(walls, walls))


SCENARIOS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    scenario.__name__: scenario for scenario in (rle, boxes, click, folder, memory, cold)
}


def prepare_job(
    settings: Settings, peer_name: str, scenario: str, size: str, count: int
) -> Callable[[], Any]:
    """Build one job in a process of its own, warmed up on a single object of a small picture."""
    executor = _executor(settings)
    peer = next(peer for peer in PEERS if peer.__name__ == peer_name)(executor)

    def prepare(image_hw: tuple[int, int], count: int) -> Callable[[], Any]:
        scene = make_scene(image_hw, count, "small")
        if scenario == "from_logits":
            return partial(peer.from_logits, scene)
        return partial(peer.from_boxes, _embedding(executor, image_hw), scene)

    prepare((240, 320), 1)()
    return prepare(SIZES_HW[size], count)


def _rows(
    scenario: str,
    case: str,
    jobs: dict[str, Callable[[], Any]],
    settings: Settings,
    *,
    needed: int = 0,
) -> Iterator[Row]:
    """Measure the peers of one case; the official one is left out where it does not fit."""
    if needed > available_bytes():
        del jobs[Official.name]
        yield Row(scenario, case, Official.name, note=f"skipped: needs {needed / 1e9:.0f} GB")
    timings, answers = time_interleaved(jobs, runs=settings.runs, warmups=settings.warmups)
    reference = next(iter(jobs))
    for name, timing in timings.items():
        yield Row(
            scenario,
            case,
            name,
            timing=timing,
            equality=None if name == reference else compare(answers[name], answers[reference]),
            ratio=timings[reference].p50_ms / timing.p50_ms,
            note="" if reference == Official.name else f"ratio to {reference}",
        )


def _executor(settings: Settings) -> Sam2Executor:
    executor = load(settings.model, device=settings.device, dtype=settings.dtype, seed=SEED)
    executor.warm_up()
    return executor


def _embedding(executor: Sam2Executor, image_hw: tuple[int, int]) -> Embedding:
    return executor.embed([Image(make_picture(image_hw, SEED))])[0]


def _scenes(settings: Settings) -> Iterator[tuple[str, Scene]]:
    for name in settings.sizes:
        for count in settings.counts:
            for size in ("small", "large"):
                scene = make_scene(SIZES_HW[name], count, size)
                yield f"{name} x {count} {size}", scene


def _official_bytes(scene: Scene) -> int:
    """Three masks a prompt at full size, as float32 and as bool."""
    height, width = scene.image_hw
    return len(scene.boxes_xyxy) * 3 * height * width * (4 + 1)


def _segment_files(peer: Any, files: list[Path], boxes: np.ndarray) -> Any:
    images = [Image(np.asarray(PilImage.open(path)), id=path.name) for path in files]
    return peer.from_pictures(images, boxes)

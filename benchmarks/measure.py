"""Time, memory and agreement, measured the same way for everybody."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

LEAST_RUNS = 2

CocoRle = dict[str, Any]
"""``{"size": [h, w], "counts": str}``, compressed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs: on the wall, and of all cores of this process together.

    The load average tells how busy the machine was at their end.
    """

    wall_s: list[float]
    cpu_s: list[float]
    load_average: float

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.wall_s) * 1e3

    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.wall_s, 90)) * 1e3

    @property
    def cpu_ms(self) -> float | None:
        return statistics.median(self.cpu_s) * 1e3 if self.cpu_s else None


@dataclass(frozen=True)
class Agreement:
    """How the masks of a peer compare with those of the reference.

    Attributes:
        masks: how many there are.
        differing: how many differ in any byte of their run lengths.
        worst_flipped: largest share of a picture's pixels that one mask has otherwise.
        mean_flipped: the same, mean over the masks.
        mean_iou: mean over the masks.
        p1_iou: the first percentile: only one mask in a hundred is worse.
    """

    masks: int
    differing: int
    worst_flipped: float
    mean_flipped: float
    mean_iou: float
    p1_iou: float

    def __str__(self) -> str:
        if not self.differing:
            return f"{self.masks}/{self.masks} equal"
        if self.mean_iou > 0.9999:
            return f"{self.differing}/{self.masks} differ, ≤ {self.worst_flipped:.0e} px"
        return f"mIoU {self.mean_iou:.4f}, p1 {self.p1_iou:.3f}, flipped {self.mean_flipped:.1e}"


@dataclass(frozen=True)
class Gate:
    """What masks must keep for their time to count; a run that fails one exits with 1."""

    name: str
    worst_flipped: float = 1.0
    mean_flipped: float = 1.0
    mean_iou: float = 0.0
    p1_iou: float = 0.0

    def passes(self, agreement: Agreement) -> bool:
        return (
            agreement.worst_flipped <= self.worst_flipped
            and agreement.mean_flipped <= self.mean_flipped
            and agreement.mean_iou >= self.mean_iou
            and agreement.p1_iou >= self.p1_iou
        )


EQUAL = Gate("byte for byte", worst_flipped=0.0)
# Sums in another order round otherwise, and flip a pixel whose logit is 0 but for rounding.
ROUNDED = Gate("but for rounding", worst_flipped=1e-5)
CLOSE = Gate("near", mean_flipped=5e-3, mean_iou=0.95, p1_iou=0.8)


def time_interleaved(
    jobs: Mapping[str, Callable[[], Any]], *, runs: int, warmups: int, seconds: float
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Run the jobs in turn, so that a disturbance hits all of them; also return their answers.

    A job too slow to run every turn within its seconds sits some turns out, evenly spread, but
    runs at least `LEAST_RUNS` times, after one warm-up if any are wanted.
    """
    answers: dict[str, Any] = {}
    for name, job in jobs.items():
        start = time.perf_counter()
        for _ in range(warmups):
            answers[name] = job()
            if time.perf_counter() - start > seconds / 4:
                break
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(runs):
        for name, job in jobs.items():
            behind = sum(wall[name]) * runs > seconds * turn
            must = runs - turn <= LEAST_RUNS - len(wall[name])
            if turn and behind and not must:
                continue
            wall_start, cpu_start = _clocks()
            answers[name] = job()
            wall_stop, cpu_stop = _clocks()
            wall[name].append(wall_stop - wall_start)
            cpu[name].append(cpu_stop - cpu_start)
    load = os.getloadavg()[0]
    return {name: Timing(wall[name], cpu[name], load) for name in jobs}, answers


def compare(ours: Sequence[CocoRle], theirs: Sequence[CocoRle]) -> Agreement:
    """Compare compressed COCO run lengths byte for byte, and what differs pixel for pixel."""
    pairs = list(zip(ours, theirs, strict=True))
    figures = np.array([(1.0, 0.0) if a == b else _iou_and_flipped(a, b) for a, b in pairs])
    return Agreement(
        masks=len(pairs),
        differing=sum(a != b for a, b in pairs),
        worst_flipped=float(figures[:, 1].max()),
        mean_flipped=float(figures[:, 1].mean()),
        mean_iou=float(figures[:, 0].mean()),
        p1_iou=float(np.percentile(figures[:, 0], 1)),
    )


def peak_extra_mb(function: Callable[..., Any], *arguments: Any) -> float:
    """Measure memory in a fresh process.

    Args:
        function: at module level; called there, it prepares and returns the job to be measured.
        arguments: for the function.

    Returns:
        Peak above what was held before the job, in MB: of the device on CUDA, else of the process.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_peak_of_job, (function, *arguments)))


def environment(device: str) -> dict[str, Any]:
    """Describe machine and software."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _git_commit(),
        "processor": torch.cuda.get_device_name(device) if "cuda" in device else _cpu_name(),
        "cores": os.cpu_count(),
        "instructions": _cpu_instructions(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
    }


def available_bytes() -> int:
    """Return memory of the host that can be had without swapping."""
    with open("/proc/meminfo") as file:
        table = dict(line.split(":") for line in file)
    return int(table["MemAvailable"].split()[0]) * 1024


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _clocks() -> tuple[float, float]:
    synchronise()
    return time.perf_counter(), time.process_time()


def _iou_and_flipped(a: CocoRle, b: CocoRle) -> tuple[float, float]:
    both = float(coco_mask.area(coco_mask.merge([a, b], intersect=True)))
    either = float(coco_mask.area(coco_mask.merge([a, b])))
    height, width = a["size"]
    return both / either, (either - both) / (height * width)


def _peak_of_job(function: Callable[..., Any], *arguments: Any) -> float:
    job = function(*arguments)
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = _status_kb("VmRSS")
    job()
    return (_status_kb("VmHWM") - before) / 1e3


def _status_kb(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def _cpu_name() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cpu_instructions() -> list[str]:
    """Which of the instructions that decide a network's speed the processor has."""
    wanted = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    about = Path("/proc/cpuinfo")  # of Linux
    lines = about.read_text().splitlines() if about.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return sorted(wanted & set(flags))


def _git_commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()

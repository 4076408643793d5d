"""Time, memory and equality, measured the same way for everybody."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sam2_blocks.masks import coco_to_rle, rle_to_mask

FLIPPED_TOLERANCE = 1e-5  # of a picture's pixels, where the order of sums may round differently


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs: on the wall, and of all cores of this process together."""

    wall_s: list[float]
    cpu_s: list[float]

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.wall_s) * 1e3

    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.wall_s, 90)) * 1e3

    @property
    def cpu_ms(self) -> float:
        return statistics.median(self.cpu_s) * 1e3


@dataclass(frozen=True)
class Equality:
    """How two lists of masks compare: masks that differ, and the worst share of flipped pixels."""

    masks: int
    differing: int
    worst_flipped: float

    @property
    def holds(self) -> bool:
        return self.worst_flipped <= FLIPPED_TOLERANCE

    def __str__(self) -> str:
        if not self.differing:
            return f"{self.masks}/{self.masks} equal"
        return f"{self.differing}/{self.masks} differ, ≤ {self.worst_flipped:.0e} px"


def time_interleaved(
    jobs: Mapping[str, Callable[[], Any]], *, runs: int, warmups: int
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Run the jobs in turn, so that a disturbance hits all of them; also return their answers."""
    answers: dict[str, Any] = {}
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-warmups, runs):
        for name, job in jobs.items():
            wall_start, cpu_start = _clocks()
            answers[name] = job()
            wall_stop, cpu_stop = _clocks()
            if turn >= 0:
                wall[name].append(wall_stop - wall_start)
                cpu[name].append(cpu_stop - cpu_start)
    return {name: Timing(wall[name], cpu[name]) for name in jobs}, answers


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Equality:
    """Compare compressed COCO run lengths byte for byte, and what differs pixel for pixel."""
    flipped = [_flipped(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    return Equality(len(ours), len(flipped), max(flipped, default=0.0))


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
    on_gpu = device.startswith("cuda")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _git_commit(),
        "processor": torch.cuda.get_device_name() if on_gpu else _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def available_bytes() -> int:
    """Return memory that can be had without swapping."""
    with open("/proc/meminfo") as file:
        table = dict(line.split(":") for line in file)
    return int(table["MemAvailable"].split()[0]) * 1024


def _clocks() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _flipped(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float((rle_to_mask(coco_to_rle(a)) != rle_to_mask(coco_to_rle(b))).mean())


def _peak_of_job(function: Callable[..., Any], *arguments: Any) -> float:
    job = function(*arguments)
    if torch.cuda.is_available():
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


def _git_commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()

"""How long a fresh interpreter takes to its first mask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers import Ours, OursPackaged

SCRIPT = """
import json, sys
import numpy as np
from sam2_blocks.executor import load
from sam2_blocks.values import Image, PromptSet
executor = load(sys.argv[1], **json.loads(sys.argv[2]))
[embedding] = executor.embed([Image(np.zeros((480, 640, 3), np.uint8))])
executor.segment([(embedding, PromptSet.from_boxes([[9, 9, 99, 99]]))])
"""


def time_cold_starts(
    model: str, peer: type[Ours], device: str, seed: int | None, runs: int
) -> list[float]:
    """Return the seconds of each run: imports, model, first picture, first mask.

    What goes through `torch.compile` is compiled each time; packages are made beforehand.
    """
    options = {"device": device, "seed": seed, **peer.options}
    command = [sys.executable, "-c", SCRIPT, model, json.dumps(options)]
    return [_time(command, variables) for variables in _caches(model, peer, device, runs)]


def _time(command: Sequence[str], variables: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **variables})
    return time.perf_counter() - start


def _caches(model: str, peer: type[Ours], device: str, runs: int) -> Iterator[dict[str, str]]:
    """Yield what names the folder where compiled code is kept, for each run of a peer."""
    if "compile" not in peer.options:
        yield from [{}] * runs
        return
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            if issubclass(peer, OursPackaged):
                yield _packaged(model, device, Path(folder))
            else:
                yield _cache_in(Path(folder) / str(run))


def _cache_in(folder: Path) -> dict[str, str]:
    return {
        "SAM2_BLOCKS_CACHE": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


def _packaged(model: str, device: str, folder: Path) -> dict[str, str]:
    """Return a cache with the package of a model, made with the first call."""
    variables = _cache_in(folder)
    command = [sys.executable, "-m", "sam2_blocks", "models", "compile", model, "--device", device]
    subprocess.run(command, check=True, env={**os.environ, **variables})
    return variables

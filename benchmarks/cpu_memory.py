"""What a model keeps of the host's memory, by backend: ``python -m benchmarks.cpu_memory``.

Each line is a process of its own: resident memory once the model is loaded, after pictures, when
nothing was asked for a while, and at its peak. OpenVINO comes twice: the first process converts.
After pictures it shall hold at most what torch does and two copies of the encoder.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from sam2_blocks.executor import load
from sam2_blocks.executor.backends import has_openvino
from sam2_blocks.executor.openvino.functions import IDLE_S
from sam2_blocks.executor.sam2.loading import load_model
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.values import Image

PICTURES = 3
HEADER = "loaded", "after pictures", "idle", "peak"
COPIES = 2
"""Of the encoder's weights in float32, that OpenVINO may hold beside what torch does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sam2.1/hiera_tiny", help="with random weights")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "MODE"), help="this process alone")
    asked = parser.parse_args()
    if asked.one:
        print(*measure(asked.model, *asked.one))
        return
    print(f"{'MiB':32}" + "".join(f"{name:>16}" for name in (*HEADER, "at most")))
    more = COPIES * encoder_mib(asked.model)
    at_most = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, backend, mode in cases():
            command = [sys.executable, "-m", "benchmarks.cpu_memory", "--model", asked.model]
            environment = {**os.environ, CACHE_VARIABLE: folder}
            figures = subprocess.run(
                [*command, "--one", backend, mode],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            row = [float(figure) for figure in figures.split()]
            if backend == "torch":
                at_most = row[1] + more
            print(f"{name:32}" + "".join(f"{mib:16,.0f}" for mib in (*row, at_most)), flush=True)


def encoder_mib(model: str) -> float:
    """Return how much the weights of a model's encoder take."""
    network = load_model(model, device="cpu", seed=0).network
    return sum(x.nbytes for x in network.image_encoder.parameters()) / 2**20


def cases() -> Iterator[tuple[str, str, str]]:
    """Names of lines, backends and modes."""
    for mode in ("strict", "fast"):
        yield f"torch {mode}", "torch", mode
        if has_openvino():
            yield f"openvino {mode}, converting", "openvino", mode
            yield f"openvino {mode}", "openvino", mode


def measure(model: str, backend: str, mode: str) -> list[float]:
    """Return what `HEADER` names, in MiB."""
    executor = load(model, device="cpu", seed=0, mode=mode, backend=backend, cache_bytes=0)
    found = [resident("VmRSS")]
    for seed in range(PICTURES):
        pixels = np.random.default_rng(seed).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
        executor.embed([Image(pixels)])
    found.append(resident("VmRSS"))
    time.sleep(IDLE_S + 1)
    return [*found, resident("VmRSS"), resident("VmHWM")]


def resident(name: str) -> float:
    """Read one line of what Linux says of this process, in MiB."""
    gc.collect()
    with open("/proc/self/status") as file:
        table = dict(line.split(":", 1) for line in file)
    return int(table[name].split()[0]) / 1024


if __name__ == "__main__":
    main()

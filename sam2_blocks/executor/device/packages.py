"""AOTInductor packages: a pure function of tensors, compiled earlier, for this machine.

A package holds code and no weights: they are inputs of what is compiled, so that the device has
them once and every checkpoint of an architecture shares the code. `packaging` makes them.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DEVICES = ("cpu", "cuda")
LOADER = "AOTIModelPackageLoader"
"""Of `torch._C._aoti`."""

OLDEST_TORCH = "2.8"
"""From which on packages run on any device, and CUDA graphs can record them."""

CPU_FLAGS = Path("/proc/cpuinfo")


def find_package_problem(device: torch.device) -> str:
    """Say why there are no packages for a device; empty if there are."""
    if device.type not in DEVICES:
        return (
            f"packages are for CUDA and the CPU, not for {str(device)!r}. Use device='cuda' or "
            "device='cpu'."
        )
    if torch.__version__ < OLDEST_TORCH:  # which knows how versions are ordered
        return (
            f"packages need torch {OLDEST_TORCH} or later, and this is {torch.__version__}. "
            "Upgrade torch."
        )
    if not hasattr(getattr(torch._C, "_aoti", None), LOADER):
        return (
            f"torch {torch.__version__} is built without what opens packages ({LOADER}). Install a "
            "build of pytorch.org."
        )
    return ""


@functools.cache
def describe_target(device: torch.device) -> str:
    """Say everything about this machine that decides whether a package runs on it."""
    made = f"torch {torch.__version__}, {platform.system()} {platform.machine()}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
        return f"{made}, CUDA {torch.version.cuda}, {name}, {major}.{minor}"
    return f"{made}, {torch.backends.cpu.get_cpu_capability()}, {_cpu_flags()}"


def _cpu_flags() -> str:
    """Name the instructions of this processor, all of which compilers may use."""
    try:
        lines = CPU_FLAGS.read_text().splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.blake2b(flags.encode(), digest_size=8).hexdigest()


class Package:
    """A function that was compiled earlier; the tensors it takes are those it was made with.

    On CUDA calls must not overlap, and run on the current stream, so that a graph can record them.
    """

    def __init__(self, runner: Any, device: torch.device) -> None:
        self._runner = runner
        self._device_type = device.type

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run it on tensors of the shapes and types that it was made with."""
        # Casts are part of the package: others would be made of what it calls of torch.
        with torch.autocast(self._device_type, enabled=False):
            outputs: list[Tensor] = self._runner.run([tensor.contiguous() for tensor in inputs])
            return outputs


def open_package(content: bytes, device: torch.device) -> Package:
    """Open what `packaging.compile_package` made.

    Args:
        content: of the file.
        device: that it was compiled for.

    Raises:
        RuntimeError: if it is none, or of another torch.
    """
    from torch._C._aoti import AOTIModelPackageLoader

    on_cuda = device.type == "cuda"
    index = device.index if on_cuda and device.index is not None else -1
    with tempfile.TemporaryDirectory(prefix="sam2-blocks-") as folder:  # torch makes copies
        path = Path(folder, "package.pt2")
        path.write_bytes(content)
        # What `torch._inductor.aoti_load_package` does after seconds of imports, and of asking a
        # compiler what processor this is. Bookkeeping for threads is what graphs cannot record.
        runner = AOTIModelPackageLoader(str(path), "model", on_cuda, 1, index)
    return Package(runner, device)

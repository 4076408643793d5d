"""Which devices this machine has, and which of them torch can use."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

NVIDIA = Path("/proc/driver/nvidia/version")
AMD = Path("/dev/kfd")
CHOOSE = "choose the line for it at https://pytorch.org/get-started/locally"


def describe_devices() -> list[str]:
    """Return one line a device that torch can compute on, the CPU first."""
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.backends.mps.is_available():
        found.append("mps")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        found.append(f"cuda:{index} ({torch.cuda.get_device_name(index)}, {memory:.0f} GiB)")
    return found


def memory_of(device: str) -> int | None:
    """Return the bytes of a device's memory; None for one that does not say."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(int(index or 0)).total_memory)


def nbytes_of(network: torch.nn.Module) -> int:
    """Return the bytes of a network's weights."""
    tensors = (*network.parameters(), *network.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def suggest_installation() -> str | None:
    """Return what to install for a GPU that is there and torch does not use; None if there is none.

    Drivers are looked for where Linux has them; elsewhere only Apple's GPUs are known.
    """
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return None
    built = f"torch {torch.__version__}"
    if NVIDIA.exists():
        if torch.version.cuda is None:
            return f"an NVIDIA driver is here, but {built} is for CPUs: {CHOOSE}"
        return (
            f"an NVIDIA driver is here, but {built}, built for CUDA {torch.version.cuda}, finds no "
            "GPU. Update the driver (nvidia-smi shows the CUDA version it can do), or, in a "
            "container, pass the GPU through (docker run --gpus all)."
        )
    if AMD.exists():
        return f"an AMD GPU is here, but {built} is not for ROCm: {CHOOSE}"
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        return f"an Apple GPU is here, but {built} does not use it: update macOS or torch."
    return None

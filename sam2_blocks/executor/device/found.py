"""Which devices this machine has."""

from __future__ import annotations

import torch


def describe_devices() -> list[str]:
    """Return one line a device that torch can compute on, the CPU first."""
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.backends.mps.is_available():
        found.append("mps")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        found.append(f"cuda:{index} ({torch.cuda.get_device_name(index)}, {memory:.0f} GiB)")
    return found

"""Names of the devices that models run on, as pipelines, commands and requests write them."""

from __future__ import annotations

import re

from sam2_blocks.errors import did_you_mean

DEVICE_PATTERN = r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$"
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
"""Names of devices, for suggestions; any number may follow ``cuda:``. A plugin's models may run on
``xpu``, ours do not."""


def check_device(name: str) -> str:
    """Return the name of a device, if some machine may have it; this one need not.

    Args:
        name: such as ``cuda:1``.

    Raises:
        ValueError: if no machine has a device of this name.
    """
    if re.fullmatch(DEVICE_PATTERN, name) is None:
        raise ValueError(f"there is no device {name!r}.{did_you_mean(name, DEVICES)}")
    return name

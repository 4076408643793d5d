"""What precision a device is fast in, and TF32, for which torch has one switch for the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sam2_blocks.forks import after_fork


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether half precision is faster than float32 on a device.

    It is not on a processor without instructions for it: emulated, `nano` takes five times as long.

    Source: the check by which torch's own compiler chooses oneDNN's bfloat16 kernels.
    """
    supported: Callable[[], bool] = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return device.type != "cpu" or supported()


class SharedSwitch:
    """A setting of the process that some callers need changed and others as it was.

    Callers who agree run together; those who do not wait until the others are out. What the
    process had set is back when the last caller who changed it leaves.

    Args:
        read: returns the setting.
        write: sets it.
        value: what to set it to.
    """

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], None], value: Any) -> None:
        self._read = read
        self._write = write
        self._value = value
        self._found: Any = None
        self._inside = {True: 0, False: 0}
        self._left = threading.Condition()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        """Put back, in a forked child, what threads had changed that are not there."""
        if self._inside[True]:
            self._write(self._found)
        self._inside = {True: 0, False: 0}
        self._left = threading.Condition()

    @contextmanager
    def held(self, *, changed: bool) -> Iterator[None]:
        """Keep the setting changed, or as the process has it, inside this scope."""
        with self._left:
            self._left.wait_for(lambda: not self._inside[not changed])
            if changed and not self._inside[True]:
                self._found = self._read()
                self._write(self._value)
            self._inside[changed] += 1
        try:
            yield
        finally:
            with self._left:
                self._inside[changed] -= 1
                if changed and not self._inside[True]:
                    self._write(self._found)
                self._left.notify_all()


def _tf32_switch() -> SharedSwitch:
    """Make the switch for matrix products; torch 2.9 renamed the setting and warns of the old."""
    settings: Any = torch.backends.cuda.matmul
    name, value = (
        ("fp32_precision", "tf32") if hasattr(settings, "fp32_precision") else ("allow_tf32", True)
    )
    return SharedSwitch(
        lambda: getattr(settings, name), lambda found: setattr(settings, name, found), value
    )


TF32 = _tf32_switch()

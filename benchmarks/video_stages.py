"""Where the time of our tracking goes: a clock around the methods that do the work.

Frames are encoded while others are followed, so the stages of a frame take longer together than
the frame does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sam2_blocks.executor.sam2 import executor as frames
from sam2_blocks.executor.sam2 import memory_attention, session
from sam2_blocks.executor.sam2.heads import Heads
from sam2_blocks.executor.sam2.memory import Memory

__all__ = ["timed"]

_adding = threading.Lock()

METHODS: dict[str, tuple[Any, str]] = {
    "encode the frame": (frames, "embed_frame"),
    "read memories": (Memory, "read"),
    "of that, weigh memories": (memory_attention, "_weigh"),
    "of that, products and softmax": (memory_attention, "_read"),
    "decode": (Heads, "follow"),
    "write memories": (Memory, "write"),
    "masks to run lengths": (session, "logits_to_rles"),
}


@contextmanager
def timed(executor: Any) -> Iterator[dict[str, float]]:
    """Add up the seconds that each stage takes inside this block, on a CPU.

    Args:
        executor: whose device says whether a clock of the host means anything.
    """
    if executor.spec.device != "cpu":
        raise ValueError("--stages wants --device cpu: a GPU works on while the host looks away")
    spent = dict.fromkeys(METHODS, 0.0)
    with ExitStack() as stack:
        for name, (owner, method) in METHODS.items():
            stack.enter_context(patch.object(owner, method, _clocked(owner, method, name, spent)))
        yield spent


def _clocked(owner: Any, method: str, name: str, spent: dict[str, float]) -> Callable[..., Any]:
    plain = getattr(owner, method)

    def run(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return plain(*arguments, **named)
        finally:
            with _adding:
                spent[name] += time.perf_counter() - begun

    return run

"""`torch.compile` for parts of a network: which, whether it works here, where results stay."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Literal

import torch

from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.weights.download import cache_dir
from sam2_blocks.forks import after_fork

CompileLevel = Literal["off", "encoder", "all"]
Part = Literal["encoder", "decoder"]

PARTS: dict[str, tuple[Part, ...]] = {
    "off": (),
    "encoder": ("encoder",),
    "all": ("encoder", "decoder"),
}
BACKEND: str | Callable[..., Callable[..., object]] = "inductor"
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def _compile_alone() -> None:
    """Have torch compile in the forked child itself; its compilers' pool is the parent's.

    It compiles there again, since a child computes with fewer threads.
    """
    inductor = sys.modules.get("torch._inductor.config")
    if inductor is not None:
        inductor.compile_threads = 1  # type: ignore[attr-defined]


after_fork(_compile_alone)


def check_level(level: str, mode: str) -> None:
    """Check a level of compiling before it is used.

    Args:
        level: one of `PARTS`.
        mode: of the model, ``strict`` or ``fast``.

    Raises:
        ModelError: if there is no such level, or the mode forbids it.
    """
    if level not in PARTS:
        raise ModelError(f"there is no compile={level!r}.{did_you_mean(level, PARTS)}")
    if level != "off" and mode == "strict":
        raise ModelError(
            f"compile={level!r} rounds differently, and mode 'strict' promises the masks of the "
            "official predictor. Use mode='fast' or dtype='bfloat16', or compile='off'."
        )


def prepare_compiler(level: str, device: torch.device) -> None:
    """Try the compiler once, and choose the folder that keeps its results for later processes.

    Args:
        level: that was asked for, for the message.
        device: to compile for.

    Raises:
        ModelError: if nothing can be compiled here.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(cache_dir() / "inductor"))
    try:
        compile_function(lambda x: [x + 1])(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"compile={level!r} does not work here: {reason}. It needs a C++ compiler such as g++ "
            "and, on CUDA, Triton. Install what is missing, or use compile='off'."
        ) from error


def compile_function(function: TensorFunction) -> TensorFunction:
    """Compile a pure function of tensors, anew for each combination of shapes.

    After the eighth combination torch leaves further ones as they are.
    """
    compiled: TensorFunction = torch.compile(function, backend=BACKEND, dynamic=False)
    return compiled

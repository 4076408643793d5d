"""Making AOTInductor packages; needs compilers and much of torch, and so is imported when asked."""

from __future__ import annotations

import atexit
import functools
import io
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch._inductor import aoti_compile_and_package, config
from torch.fx.experimental.proxy_tensor import make_fx

from sam2_blocks.errors import ModelError, message_of
from sam2_blocks.executor.device.compiling import CACHE_VARIABLE
from sam2_blocks.executor.device.graphs import TensorFunction

MEMORY_MAP = Path("/proc/self/maps")
TRITON_CACHE_VARIABLE = "TRITON_CACHE_DIR"
COMPILER_ERRORS = (RuntimeError, ImportError, OSError, subprocess.SubprocessError)


def compile_package(function: TensorFunction, inputs: Sequence[Tensor], what: str) -> bytes:
    """Compile a pure function of tensors for the shapes, types and device of its inputs.

    It is followed once, in the scope of the caller: what is cast there is cast in the package.

    Args:
        function: every weight it uses must be among its inputs.
        inputs: example tensors on one device.
        what: names it in errors.

    Raises:
        ModelError: if it keeps tensors of its own, or nothing can be compiled here.
    """
    inputs = [tensor.contiguous() for tensor in inputs]
    graph = _follow(function, inputs, what)
    package = io.BytesIO()
    try:
        with warnings.catch_warnings(), _workshop(inputs[0].device):
            warnings.simplefilter("ignore")  # of torch and compilers, about themselves
            exported = torch.export.export(graph, tuple(inputs), strict=False)
            aoti_compile_and_package(
                exported, package_path=package, inductor_configs=dict(_settings())
            )
    except COMPILER_ERRORS as error:
        raise ModelError(
            f"{what} cannot be compiled here: {_reason(error)}. It needs a C++ compiler such as "
            "g++ and, on CUDA, Triton and NVIDIA's CUDA toolkit (CUDA_HOME), and some hundred MB "
            "for temporary files. Install what is missing."
        ) from error
    return package.getvalue()


def _follow(function: TensorFunction, inputs: Sequence[Tensor], what: str) -> torch.fx.GraphModule:
    """Write down the function's steps, with the casts of the caller's scope among them."""
    with torch.inference_mode(False), torch.no_grad():
        followed = make_fx(lambda *tensors: tuple(function(*tensors)))(*inputs)
    followed.graph.eliminate_dead_code()
    own = [str(node.target) for node in followed.graph.nodes if node.op == "get_attr"]
    if own:
        raise ModelError(
            f"{what} cannot be packaged: it keeps tensors of its own ({', '.join(own)}), where "
            "weights alone are expected. Use compile='encoder' without a package."
        )
    return torch.fx.GraphModule({}, followed.graph)


def _settings() -> Iterator[tuple[str, object]]:
    """Yield what is set of torch's compiler, where it knows that."""
    # Else the threads of this process are part of the code: too many in a forked child, which waits
    # for them for ever, and more than sums have places on the same processor with more cores.
    yield "cpp.dynamic_threads", True
    if hasattr(config.aot_inductor, "precompile_headers"):
        yield "aot_inductor.precompile_headers", False  # takes longer than it saves


def _reason(error: BaseException) -> str:
    """Return the line of a compiler's output that says what is wrong, else the first."""
    lines = [line.strip() for line in message_of(error).splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower()]
    return (errors or lines or [type(error).__name__])[0].rstrip(".")


@contextmanager
def _workshop(device: torch.device) -> Iterator[None]:
    """Scope for compilers, with a folder for what they leave that goes with this process."""
    folder = _leftovers()
    variables = {CACHE_VARIABLE: str(folder), TRITON_CACHE_VARIABLE: str(folder / "triton")}
    if device.type == "cuda":
        variables |= _cuda_variables(folder)
    # Casts are written down already, and would else be made twice.
    plain = torch.autocast(device.type, enabled=False)
    with (
        mock.patch.dict(os.environ, variables),
        torch.inference_mode(False),
        torch.no_grad(),
        plain,
    ):
        yield


@functools.cache
def _leftovers() -> Path:
    """Make the folder; one a process, as torch remembers the headers it wrote to the first."""
    atexit.register(remove_leftovers)
    return Path(tempfile.mkdtemp(prefix="sam2-blocks-"))


def remove_leftovers() -> None:
    """Delete what compilers left; for programs that end without Python's doing so."""
    if _leftovers.cache_info().currsize:
        shutil.rmtree(_leftovers(), ignore_errors=True)
        _leftovers.cache_clear()


def _cuda_variables(folder: Path) -> dict[str, str]:
    """Say where CUDA's toolkit is, and the driver's library, in a name that linkers look for."""
    from torch.utils import cpp_extension

    driver = _find_driver()
    if driver is not None:
        with suppress(FileExistsError):
            (folder / "libcuda.so").symlink_to(driver)
    searched = os.pathsep.join(filter(None, [os.environ.get("LIBRARY_PATH"), str(folder)]))
    home = cpp_extension.CUDA_HOME
    return {"LIBRARY_PATH": searched, **({"CUDA_HOME": home} if home else {})}


def _find_driver() -> Path | None:
    """Return the file of CUDA's driver that this process has in memory, where the system says."""
    try:
        lines = MEMORY_MAP.read_text().splitlines()
    except OSError:
        return None
    return next((Path(line.split()[-1]) for line in lines if "/libcuda.so" in line), None)

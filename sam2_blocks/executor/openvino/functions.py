"""Pure functions of tensors, converted from torch and run by OpenVINO on the CPU."""

from __future__ import annotations

import io
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.openvino.files import (
    compiled_path,
    discard_compiled,
    read_compiled,
    write_compiled,
)
from sam2_blocks.executor.openvino.library import core, openvino
from sam2_blocks.forks import after_fork

_converting = threading.Lock()


def _forget() -> None:
    """Free the lock in a forked child, where whoever held it is not."""
    global _converting
    _converting = threading.Lock()


after_fork(_forget)


@dataclass(frozen=True)
class Plan:
    """What to compile.

    Attributes:
        function: of float32 tensors, pure.
        example: float32 inputs to follow it with.
        name: what the function is and the weights it has; equal names mean equal results.
        precision: ``f32``, or ``bf16`` where the processor has it.
        threads: that compute.
        streams: calls that compute at once, sharing the threads.
        free_axes: which axes of which input may have any length, as (input, axis).
        network: whose weights the function uses.
    """

    function: TensorFunction
    example: Sequence[Tensor]
    name: str
    precision: str
    threads: int
    streams: int = 1
    free_axes: frozenset[tuple[int, int]] = frozenset()
    network: nn.Module | None = None

    @property
    def shapes(self) -> list[list[int]]:
        """The shape of each input, -1 for a free axis."""
        return [
            [-1 if (index, axis) in self.free_axes else side for axis, side in enumerate(x.shape)]
            for index, x in enumerate(self.example)
        ]

    @property
    def settings(self) -> dict[str, object]:
        """OpenVINO's properties; pinned threads of two processes would share cores."""
        return {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,
        }


class CompiledFunction:
    """What OpenVINO made of a function; calls may overlap, and a forked child may go on with it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: deque[Any] = deque()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return float32 tensors of the caller's own."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        arrays = [x.detach().to(torch.float32).contiguous().numpy() for x in inputs]
        outputs = request.infer(arrays, share_inputs=True).values()
        self._idle.append(request)
        return [torch.from_numpy(output) for output in outputs]


def compile_plan(plan: Plan) -> CompiledFunction:
    """Compile a function, from what an earlier process kept if there is any.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
        RuntimeError: if OpenVINO cannot do it.
    """
    path = compiled_path(_identity(plan))
    kept = read_compiled(path)
    if kept is not None:
        try:
            return CompiledFunction(core().import_model(io.BytesIO(kept), "CPU", plan.settings))
        except RuntimeError as error:
            discard_compiled(path, str(error).strip().splitlines()[-1])
    with _converting:  # tracing leaves traces in module state of torch's
        model = _convert(plan)
    compiled = core().compile_model(model, "CPU", plan.settings)
    write_compiled(path, _exported(compiled))
    return CompiledFunction(compiled)


def _identity(plan: Plan) -> str:
    """Everything that decides what is exported."""
    abilities = sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    versions = f"openvino {openvino().get_version()}, torch {torch.__version__}"
    return f"{plan.name}, {plan.shapes}, {plan.precision}, {versions}, {abilities}"


def _exported(compiled: Any) -> bytes:
    exported = compiled.export_model()
    made: bytes = exported if isinstance(exported, bytes) else exported.getvalue()
    return made


def _convert(plan: Plan) -> Any:
    """Follow the function with its example, in float32 whatever scope the caller is in."""
    in_full = torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False)
    with in_full[0], in_full[1], in_full[2], _UnequalAxes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lengths become constants; that tracing is old
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Traceable(plan.function, plan.network).eval(),
            tuple(x.clone() for x in plan.example),
            check_trace=False,
        )
        return openvino().convert_model(traced, input=plan.shapes)


class _Traceable(nn.Module):
    """A function as the module that it is traced as."""

    def __init__(self, function: TensorFunction, network: nn.Module | None) -> None:
        super().__init__()
        self.network = network  # its weights become the module's
        self._function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the function."""
        return tuple(self._function(*inputs))


class _UnequalAxes(TorchFunctionMode):
    """Scope in which no attention has as many queries as heads.

    OpenVINO 2026.4 mistakes these two axes for one another, in bfloat16, where they are equally
    long: the features of Hiera's third stage are then a fifth off. So one query is asked twice.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Ask the first query again, and leave out what is answered to it."""
        if func is F.scaled_dot_product_attention and args[0].shape[-2] == args[0].shape[-3]:
            queries = torch.cat([args[0], args[0][..., :1, :]], -2)
            return func(queries, *args[1:], **(kwargs or {}))[..., :-1, :]
        return func(*args, **(kwargs or {}))

"""Pure functions of tensors, converted from torch and run by OpenVINO on the CPU."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sam2_blocks.executor.cache.compiled import (
    compiled_path,
    discard_compiled,
    map_compiled,
    page_out,
    write_compiled,
)
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.openvino.library import core, openvino
from sam2_blocks.forks import ForkSafeLock, after_fork
from sam2_blocks.heap import give_back
from sam2_blocks.values import UInt8Array

IDLE_S = 5.0
"""Seconds without a call after which a compiled function needs no more than its weights."""

_converting = ForkSafeLock()
_of_parents: list[Any] = []  # to free these might wait for threads that are not here


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
    """What OpenVINO made of a function; calls may overlap, and a forked child may go on with it.

    What lies between inputs and outputs, hundreds of megabytes, is kept from call to call: to have
    it anew would cost a tenth of the time. Some seconds after the last call it is given back.

    Args:
        compiled: by OpenVINO.
        exported: what it was imported from, whose weights it may read as long as it lives.
        settings: OpenVINO's properties.
    """

    def __init__(self, compiled: Any, exported: UInt8Array, settings: Mapping[str, object]) -> None:
        self._compiled = compiled
        self._exported = exported
        self._settings = settings
        self._idle: deque[Any] = deque()
        self._ended = 0.0
        self._paged_out = False
        self._orphaned = False
        self._begin()
        after_fork(self._start_afresh)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0  # that run
        self._watched = False

    def _start_afresh(self) -> None:
        """Start again in a forked child, which has neither the watch nor who holds the lock.

        Nor the threads of several streams; a single one computes in that of the caller.
        """
        self._begin()
        self._orphaned = self._settings["NUM_STREAMS"] != 1

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return float32 tensors of the caller's own."""
        with self._running():
            request = self._take_request()
            arrays = [x.detach().to(torch.float32).contiguous().numpy() for x in inputs]
            outputs = request.infer(arrays, share_inputs=True).values()
            self._idle.append(request)
            self._let_go_of_file()
            return [torch.from_numpy(output) for output in outputs]

    def _take_request(self) -> Any:
        if self._orphaned:
            self._import_anew()
        try:
            return self._idle.pop()
        except IndexError:
            return self._compiled.create_infer_request()

    def _import_anew(self) -> None:
        with self._lock:
            if self._orphaned:
                _of_parents.extend((self._compiled, self._idle))
                self._compiled, self._idle = _import(self._exported, self._settings), deque()
                self._orphaned = False

    def split(self, calls: int) -> CompiledFunction:
        """Return the same for so many calls at a time, with one core each."""
        settings = {"INFERENCE_NUM_THREADS": calls, "NUM_STREAMS": calls}
        return _imported(self._exported, {**self._settings, **settings})

    def _let_go_of_file(self) -> None:
        """From the first call on OpenVINO has the weights in an order of its own."""
        if not self._paged_out:
            self._paged_out = True
            page_out(self._exported)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Keep the memory meanwhile, and see that it is given back if nobody calls soon after."""
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._ended = time.monotonic()
                self._watched = self._watched or _look_later(self, IDLE_S)

    def look(self) -> None:
        """Let go of what is only needed during a call, or look again when it may be time."""
        with self._lock:
            left = IDLE_S if self._calls else self._ended + IDLE_S - time.monotonic()
            self._watched = left > 0 and _look_later(self, left)
            if left > 0:
                return
            self._idle.clear()
            self._compiled.release_memory()
        give_back()


def _look_later(function: CompiledFunction, seconds: float) -> bool:
    """Call `look` in a thread of its own, if the function is still there, or say that none is."""
    reference = weakref.ref(function)

    def look() -> None:
        found = reference()
        if found is not None:
            found.look()

    timer = threading.Timer(seconds, look)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # the process ends, or has no more threads: what was computed counts
        return False
    return True


def compile_plan(plan: Plan) -> CompiledFunction:
    """Compile a function, from what an earlier process kept if there is any.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
        RuntimeError: if OpenVINO cannot do it.
    """
    path = compiled_path(_identity(plan))
    kept = map_compiled(path)
    if kept is not None:
        try:
            return _imported(kept, plan.settings)
        except RuntimeError as error:
            discard_compiled(path, str(error).strip().splitlines()[-1])
    exported = _exported(plan)
    write_compiled(path, exported)
    kept = map_compiled(path)
    if kept is None:  # the folder cannot be written
        kept = np.frombuffer(bytearray(exported), np.uint8)
    del exported
    gc.collect()
    give_back()  # converting takes several times what is left of it
    return _imported(kept, plan.settings)


def _imported(exported: UInt8Array, settings: Mapping[str, object]) -> CompiledFunction:
    return CompiledFunction(_import(exported, settings), exported, settings)


def _import(exported: UInt8Array, settings: Mapping[str, object]) -> Any:
    """Take what was exported as it is: its weights are not copied."""
    tensor = openvino().Tensor(exported, shared_memory=True)
    return core().import_model(tensor, "CPU", dict(settings))


def _identity(plan: Plan) -> str:
    """Everything that decides what is exported."""
    abilities = sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    versions = f"openvino {openvino().get_version()}, torch {torch.__version__}"
    return f"{plan.name}, {plan.shapes}, {plan.precision}, {versions}, {abilities}"


def _exported(plan: Plan) -> bytes:
    """Convert, compile and export; nothing else is left of it."""
    with _converting.held():  # tracing leaves traces in module state of torch's
        model = _convert(plan)
    exported = core().compile_model(model, "CPU", plan.settings).export_model()
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
        # It asks Python for each weight, and takes what Ctrl-C raises meanwhile for an answer.
        # That is raised in the main thread alone, which waits here; it has it afterwards.
        with ThreadPoolExecutor(1, "sam2-blocks") as another:
            return another.submit(openvino().convert_model, traced, input=plan.shapes).result()


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

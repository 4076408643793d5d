"""CUDA graphs: a forward pass recorded once for each combination of shapes, replayed in one launch.

A small batch leaves the device waiting for launches; a replay is one. Graphs read and write
buffers of their own, so inputs are copied in and outputs out, which costs far less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

TensorFunction = Callable[..., Sequence[Tensor]]
# Shapes a service meets: six sizes of batch, each with a few numbers of points.
MAX_GRAPHS = 24
WARM_UP_RUNS = 2


class Graph(Protocol):
    """A recorded pass."""

    def replay(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run it on inputs of the shapes it was recorded with; the caller owns the outputs."""
        ...


Record = Callable[[TensorFunction, Sequence[Tensor]], Graph]


class GraphedFunction:
    """A pure function of tensors that records itself at each new combination of shapes.

    Calls must not overlap: hold the executor's lock. The graphs share memory for what lies
    between inputs and outputs, and the least recently used goes when there are too many.

    Args:
        function: tensors to tensors, on one CUDA device, without waiting for it.
        max_graphs: how many to keep.
        record: makes a graph; `CudaGraphs` if not given.
    """

    def __init__(
        self,
        function: TensorFunction,
        *,
        max_graphs: int = MAX_GRAPHS,
        record: Record | None = None,
    ) -> None:
        self._function = function
        self._max_graphs = max_graphs
        self._record = record or CudaRecorder()
        self._graphs: OrderedDict[object, Graph] = OrderedDict()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return what the function returns, in memory of the caller's own."""
        key = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs)
        if key not in self._graphs:
            while len(self._graphs) >= self._max_graphs:
                self._graphs.popitem(last=False)
            self._graphs[key] = self._record(self._function, inputs)
        self._graphs.move_to_end(key)
        return self._graphs[key].replay(inputs)


class CudaRecorder:
    """Records graphs that share one pool of memory and are replayed one after another."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._last_replay = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def __call__(self, function: TensorFunction, inputs: Sequence[Tensor]) -> Graph:
        """Run the function until nothing is left to set up or compile, then record it."""
        own_inputs = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device):
            current = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP_RUNS):
                    function(*own_inputs)
            current.wait_stream(aside)
            # Other threads may go on allocating on the device meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"
            ):
                own_outputs = function(*own_inputs)
        return CudaGraph(graph, own_inputs, list(own_outputs), self._last_replay)


class CudaGraph:
    """One recorded pass with its own inputs and outputs; see `CudaRecorder`."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        own_inputs: list[Tensor],
        own_outputs: list[Tensor],
        last_replay: torch.cuda.Event,
    ) -> None:
        self._graph = graph
        self._own_inputs = own_inputs
        self._own_outputs = own_outputs
        self._last_replay = last_replay

    def replay(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Copy inputs in, replay, copy outputs out, after whatever stream did so before."""
        with torch.cuda.device(inputs[0].device):
            self._last_replay.wait()
            for own, given in zip(self._own_inputs, inputs, strict=True):
                own.copy_(given)
            self._graph.replay()
            outputs = [output.clone() for output in self._own_outputs]
            self._last_replay.record()
        return outputs

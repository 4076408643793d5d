"""A forward pass recorded once on a CPU and replayed without Python.

Python launches one operation after the other and needs its lock for each. Threads that run small
networks side by side wait for each other there, and for any thread that makes outlines or JSON. A
replay is one call, in which torch's interpreter launches the same operations on the same numbers.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sam2_blocks.errors import message_of
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.forks import ForkSafeLock

LOGGER = logging.getLogger(__name__)
UNKNOWN = (AttributeError, TypeError, RuntimeError)
"""What a torch raises in which the names used here, which are private, are others."""

_recording = ForkSafeLock()


def record_function(function: TensorFunction, example: Tensor) -> TensorFunction:
    """Record a pure function of one tensor, for tensors of one shape.

    Call it and what it returns in the same scope, such as `LoadedModel.computing`. Where this torch
    cannot record it, which the log says, it is the function itself that is returned.

    Args:
        function: what it does may depend on the shape of the tensor, but not on its values; its
            weights need no gradients.
        example: of the shape; its values do not matter.

    Returns:
        What several threads may run at once.
    """
    try:
        return _record(function, example)
    except UNKNOWN as error:  # if it is the function's own, whoever calls it meets it again
        LOGGER.info("torch %s does not record here: %s", torch.__version__, message_of(error))
        return function


def _record(function: TensorFunction, example: Tensor) -> TensorFunction:
    # `torch.jit.trace` would keep the function and its weights as long as the process lives.
    with _recording.held(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lengths become constants
        graph, _ = torch._C._create_graph_by_tracing(
            lambda batch: tuple(function(batch)), [example], lambda _: "", True, False, None, []
        )
    recorded = torch._C._create_function_from_graph("forward", graph)
    unwatched = torch.jit.optimized_execution  # type: ignore[attr-defined]

    def replay(batch: Tensor) -> Sequence[Tensor]:
        # Torch would watch two replays and prepare for more of their kind: longer than it saves.
        with unwatched(False):
            levels: tuple[Tensor, ...] = recorded(batch)
        return levels

    return replay

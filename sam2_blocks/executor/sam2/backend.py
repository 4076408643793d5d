"""Which backend computes a model, and the parts of the network that OpenVINO computes."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sam2_blocks.errors import MissingExtraError, ModelError, message_of
from sam2_blocks.executor.backends import (
    BACKEND_VARIABLE,
    Backend,
    default_backend,
    find_backend_problem,
    has_openvino,
)
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.openvino.functions import CompiledFunction, Plan, compile_plan
from sam2_blocks.executor.sam2 import nested
from sam2_blocks.executor.sam2.int8 import with_int8
from sam2_blocks.executor.sam2.trunk import without_positions
from sam2_blocks.forks import ForkSafeLock
from sam2_blocks.installed import version_of

if TYPE_CHECKING:
    from sam2_blocks.executor.sam2.model import LoadedModel

LOGGER = logging.getLogger(__name__)

VERSION = 3
"""Of what is converted, and how: raise it when either changes here."""

DECODED_AT_ONCE = 8
"""Prompts that OpenVINO decodes in one call: it is as fast as with more, in less memory."""

WORTH_FILLING = 5
"""Prompts in a call from which on, in half precision, it is faster than torch even if filled up."""

FAILURES = (RuntimeError, ImportError, OSError, AttributeError, TypeError)
"""Of OpenVINO; the last two where names or arguments of another version are other ones."""

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
FASTER_ON = ("x86_64", "AMD64")
"""Processors on which OpenVINO was measured to be faster than torch."""


def choose_backend(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    mode: str,
    level: str,
    *,
    int8: bool = False,
) -> Backend:
    """Turn ``torch``, ``openvino`` or ``auto`` into a backend that is here.

    ``auto`` is torch in mode ``strict``, and in ``fast`` the faster one.

    Args:
        name: as the user wrote it.
        device: where the model is.
        dtype: what it computes in.
        mode: ``strict`` or ``fast``.
        level: what goes through `torch.compile`.
        int8: whether the user asked for linear layers in int8.

    Raises:
        MissingExtraError: if OpenVINO is asked for and not installed.
        ModelError: if there is no such backend, or it cannot do what else is asked for.
    """
    if int8 and name == "torch":
        by_variable = default_backend() == "torch"
        usable = "it" if by_variable else "it or backend='auto'"
        why = f" ({BACKEND_VARIABLE} says that 'auto' is torch here)" if by_variable else ""
        raise ModelError(
            f"dtype 'int8' is computed by backend 'openvino'. Use {usable}, or another dtype{why}."
        )
    name = "openvino" if int8 and name == "auto" else name
    refusal = _find_refusal(device, dtype, level)
    if name == "openvino" and refusal:
        raise ModelError(refusal)
    problem = find_backend_problem(name)
    if problem:
        raise MissingExtraError(problem) if name == "openvino" else ModelError(problem)
    if name == "auto":
        wanted = mode == "fast" and not refusal and platform.machine() in FASTER_ON
        return "openvino" if wanted and has_openvino() else "torch"
    return "openvino" if name == "openvino" else "torch"


def _find_refusal(device: torch.device, dtype: torch.dtype, level: str) -> str:
    """Say why OpenVINO is not for this model; empty if it is."""
    if device.type != "cpu":
        return (
            f"backend 'openvino' computes on the CPU, not on {str(device)!r}. Use device='cpu', "
            "or backend='torch'."
        )
    if dtype not in PRECISIONS:
        name = str(dtype).removeprefix("torch.")
        return (
            f"backend 'openvino' computes in float32 or bfloat16, not in {name}. Use one of "
            "them, or backend='torch'."
        )
    if level != "off":
        return (
            f"compile={level!r} is of torch, and backend 'openvino' compiles by itself. Use "
            "compile='off', or backend='torch'."
        )
    return ""


def _made_of(model: LoadedModel) -> str:
    """Say everything about a model that decides what is converted: its code, too."""
    return f"{model.key}, v{VERSION} with sam2 {version_of('sam2')}"


class OpenVinoEncoder:
    """The encoder of frames in OpenVINO: float32 (B, 3, S, S) to maps, finest first.

    Args:
        run: of one frame.
    """

    def __init__(self, run: CompiledFunction) -> None:
        self._run = run
        self._split: dict[int, OpenVinoEncoder] = {}

    def __call__(self, batch: Tensor) -> list[Tensor]:
        """Encode frames one by one."""
        frames = batch.split(1)  # type: ignore[no-untyped-call]
        levels = [self._run(frame) for frame in frames]
        return [torch.cat(level) for level in zip(*levels, strict=True)]

    def split(self, calls: int) -> OpenVinoEncoder:
        """Return the same for so many calls at a time, with one core each."""
        if calls not in self._split:  # if threads ask at once, all get that of the first
            self._split.setdefault(calls, OpenVinoEncoder(self._run.split(calls)))
        return self._split[calls]


def openvino_encoder(model: LoadedModel) -> OpenVinoEncoder:
    """Compile the encoder of frames.

    Raises:
        RuntimeError: if OpenVINO cannot do it.
    """
    side = model.image_size
    function = _restated(model)
    if model.calibration is not None:
        function = with_int8(function, model.network.image_encoder, model.calibration.ranges)
    plan = Plan(
        function=function,
        example=[torch.zeros(1, 3, side, side)],
        name=f"encoder of {_made_of(model)}",
        precision=PRECISIONS[model.dtype],
        threads=torch.get_num_threads(),
        network=model.network,
    )
    with without_positions(model.network.image_encoder):
        return OpenVinoEncoder(compile_plan(plan))


def _restated(model: LoadedModel) -> TensorFunction:
    """Return what computes `LoadedModel.encode_frame`, with fewer copies if that is known."""
    network = model.network
    if not nested.is_known(network.image_encoder, model.image_size):
        return model.encode_frame
    return lambda batch: nested.encode(network, batch)[-network.num_feature_levels :]


class OpenVinoDecoder:
    """The mask decoder's tensor function: full chunks in OpenVINO, what is less in torch.

    Compiled at the first full chunk, for any number of tokens and for one picture or several.
    Threads call it at once, each computing with one core; see `Workers`.

    Args:
        model: the network.
        function: prompt tokens (N, T, C), the four tensors of `ImageSide` and two high-resolution
            features, of one picture or N, to logits and predicted IoU.
    """

    def __init__(self, model: LoadedModel, function: TensorFunction) -> None:
        self._model = model
        self._function = function
        self._threads = torch.get_num_threads()
        self._compiled: CompiledFunction | None = None
        self._failed = False
        self._compiling = ForkSafeLock()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Decode at most `DECODED_AT_ONCE` prompts; see the class."""
        count = len(inputs[0])
        compiled = None
        if WORTH_FILLING <= count <= DECODED_AT_ONCE:
            compiled = self._compile()
        if compiled is None:
            return list(self._function(*inputs))
        filled = inputs
        if count < DECODED_AT_ONCE:
            filled = tuple(_filled(x) if len(x) == count else x for x in inputs)
        return [output[:count] for output in compiled(*_channels_last(filled))]

    def _compile(self) -> CompiledFunction | None:
        with self._compiling.held():
            if self._compiled is None and not self._failed:
                try:
                    self._compiled = compile_plan(self._plan())
                except FAILURES as error:
                    self._failed = True
                    LOGGER.warning(
                        "OpenVINO cannot compute the mask decoder of %r here: %s. It is computed "
                        "by torch instead.",
                        self._model.spec.model,
                        message_of(error),
                    )
            return self._compiled

    def _plan(self) -> Plan:
        network, (height, width) = self._model.network, self._model.low_res_hw
        channels, places = network.hidden_dim, height * width // 16
        side = [(1, places, channels), *[(1, places, channels // 2)] * 3]
        maps = [(1, channels // 8, height, width), (1, channels // 4, height // 2, width // 2)]
        tokens = (DECODED_AT_ONCE, 9, channels)
        example = [torch.zeros(shape) for shape in (tokens, *side, *maps)]
        return Plan(
            function=lambda *inputs: self._function(*inputs[:5], *_channels_first(inputs[5:])),
            example=_channels_last(example),
            name=f"decoder of {_made_of(self._model)}",
            precision=PRECISIONS[self._model.dtype],
            threads=self._threads,
            streams=self._threads,
            free_axes=frozenset({(0, 1), *((index, 0) for index in range(1, 7))}),
            network=network.sam_mask_decoder,
        )


def _filled(x: Tensor) -> Tensor:
    """Repeat the last of N rows until there are as many as are decoded at once."""
    return torch.cat([x, *[x[-1:]] * (DECODED_AT_ONCE - len(x))])


def _channels_last(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Have the feature maps as they are in memory, so that nothing is copied."""
    return [*inputs[:5], *(x.permute(0, 2, 3, 1) for x in inputs[5:])]


def _channels_first(maps: Sequence[Tensor]) -> list[Tensor]:
    return [x.permute(0, 3, 1, 2) for x in maps]

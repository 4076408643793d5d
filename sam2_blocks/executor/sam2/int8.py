"""The image encoder's linear layers in int8, for a backend that has kernels for it.

Weights are rounded to 255 steps for each output, what a layer reads to 256 steps between the least
and greatest value that it read on pictures. Everything else keeps its precision: norms, softmax,
products of attention and convolutions cost little and lose much. Measured with `nano`: to quantise
those, too, left one mask in a hundred with less than half of its pixels (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sam2_blocks.executor.device.graphs import TensorFunction

Range = tuple[float, float]
STEPS = 255
"""Between the least and greatest value of what a layer reads."""

LARGEST_WEIGHT = 127
SMALLEST_SCALE = 1e-8
"""Of what is zero everywhere."""


def linear_layers(encoder: Any) -> dict[str, nn.Linear]:
    """Return the linear layers of an image encoder's trunk: nearly all of its work."""
    named = encoder.trunk.named_modules()
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


@torch.no_grad()
def measure_ranges(
    encoder: Any, encode: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> dict[str, Range]:
    """Return the least and greatest value that each linear layer reads, by its name.

    Args:
        encoder: whose layers they are.
        encode: runs it in float32.
        batches: what it sees, as `pictures_to_batch` makes them.
    """
    found: dict[str, Range] = {}

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        least, greatest = (float(x) for x in inputs[0].aminmax())
        before = found.get(name, (0.0, 0.0))  # zero is exact
        found[name] = min(before[0], least), max(before[1], greatest)

    with ExitStack() as hooks:
        for name, layer in linear_layers(encoder).items():
            handle = layer.register_forward_pre_hook(partial(look, name))
            hooks.callback(handle.remove)
        for batch in batches:
            encode(batch)
    return found


def with_int8(
    function: TensorFunction, encoder: Any, ranges: Mapping[str, Range]
) -> TensorFunction:
    """Return a function that rounds as int8 does; what follows it may compute so.

    Args:
        function: runs the encoder, in float32.
        encoder: whose linear layers are rounded.
        ranges: of what they read, as `measure_ranges` returns them.
    """
    layers = linear_layers(encoder)
    roundings = [_Rounding.of(layers[name], found) for name, found in ranges.items()]

    def rounded(*inputs: Tensor) -> Any:
        with _RoundedProducts(roundings):
            return function(*inputs)

    return rounded


class _Rounding(NamedTuple):
    """How a layer is rounded; constants, for whoever traces it.

    Attributes:
        weight: the layer's, (outputs, inputs).
        scale: a step of what it reads.
        zero: which step is zero.
        weight_scales: a step of the weights, for each output.
    """

    weight: Tensor
    scale: float
    zero: int
    weight_scales: Tensor

    @classmethod
    def of(cls, layer: nn.Linear, found: Range) -> _Rounding:
        """Spread the steps over a range and over each output's weights."""
        least, greatest = found
        scale = max((greatest - least) / STEPS, SMALLEST_SCALE)
        weight = layer.weight.detach()
        weight_scales = (weight.abs().amax(1) / LARGEST_WEIGHT).clamp(min=SMALLEST_SCALE)
        return cls(weight, scale, round(-least / scale), weight_scales)

    def holds(self, weight: Tensor) -> bool:
        """Say whether these weights are the layer's, all of them or some rows."""
        return 0 <= self._bytes_before(weight) < self.weight.nbytes

    def _bytes_before(self, weight: Tensor) -> int:
        # Views of what was loaded in inference mode do not know what they are views of.
        return weight.data_ptr() - self.weight.data_ptr()

    def round_inputs(self, x: Tensor) -> Tensor:
        """Round what the layer reads; what is beyond the range becomes its end."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, STEPS)

    def round_weight(self, weight: Tensor) -> Tensor:
        """Round (outputs, inputs) that the layer `holds`."""
        first = self._bytes_before(weight) // self.weight[0].nbytes
        scales = self.weight_scales[first : first + len(weight)]
        zeros, most = torch.zeros(len(scales), dtype=torch.int32), LARGEST_WEIGHT
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -most, most)


class _RoundedProducts(TorchFunctionMode):
    """Scope in which linear layers round their weights and what they read."""

    def __init__(self, roundings: Sequence[_Rounding]) -> None:
        super().__init__()
        self._roundings = roundings

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Round where the layer is one of those with a range."""
        rounding = self._find(args[1]) if func is F.linear else None
        if rounding is not None:
            x, weight, *rest = args
            args = (rounding.round_inputs(x), rounding.round_weight(weight), *rest)
        return func(*args, **(kwargs or {}))

    def _find(self, weight: Tensor) -> _Rounding | None:
        return next((known for known in self._roundings if known.holds(weight)), None)

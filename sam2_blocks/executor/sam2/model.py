"""A network on its device, and how its mode runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from sam2_blocks.executor.backends import Backend
from sam2_blocks.executor.device.compiling import PARTS, CompileLevel, Part, compile_function
from sam2_blocks.executor.device.graphs import GraphedFunction, TensorFunction
from sam2_blocks.executor.device.packages import Package
from sam2_blocks.executor.device.precision import TF32
from sam2_blocks.executor.device.recorded import record_function
from sam2_blocks.executor.openvino.calibrations import Calibration
from sam2_blocks.executor.sam2 import trunk
from sam2_blocks.executor.sam2.backend import OpenVinoEncoder, openvino_encoder
from sam2_blocks.executor.sam2.packaged import EncoderCode, PackagedEncoder, run_packages
from sam2_blocks.values import ExecutorSpec, Hw

Mode = Literal["strict", "fast"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network on its device.

    Attributes:
        network: a ``SAM2Base`` in evaluation mode; see `store_weights_as`.
        spec: resolved model name, device and dtype.
        key: architecture, weights and rounding; models of one key give the same embeddings.
        mode: ``strict`` or ``fast``.
        dtype: what the forward pass computes in.
        compile: which parts go through `torch.compile`.
        images_only: whether its weights lack what videos need; see `lacks_memory`.
        backend: what computes the encoder.
        weights: architecture, weights and size, whatever computes them.
        calibration: by which the encoder's linear layers are in int8, if they are.
        code: what packages of its encoder are for.
        packages: the encoder, compiled earlier, by size of batch; see `packaged`.
    """

    network: Any
    spec: ExecutorSpec
    key: str
    mode: Mode
    dtype: torch.dtype
    compile: CompileLevel = "off"
    images_only: bool = False
    backend: Backend = "torch"
    weights: str = ""
    calibration: Calibration | None = None
    code: EncoderCode | None = None
    packages: Mapping[int, Package] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.network.device
        return device

    @property
    def image_size(self) -> int:
        """Side of the square the encoder sees."""
        return int(self.network.image_size)

    @property
    def low_res_hw(self) -> Hw:
        """Size of the low-resolution mask grid."""
        height, width = self.network.sam_prompt_encoder.mask_input_size
        return int(height), int(width)

    def has_fixed_shapes(self, part: Part) -> bool:
        """Say whether each size of batch is compiled or recorded, so that there should be few."""
        if part == "encoder" and self.packages:  # which splits batches by itself
            return False
        return part in PARTS[self.compile] or self._replays_graphs

    @cached_property
    def encoder(self) -> TensorFunction:
        """The image encoder as this mode runs it; call it inside `computing`.

        Takes float32 (B, 3, S, S), and gives feature maps, finest first.
        """
        if self.backend == "openvino" or self.packages:
            return lambda batch: self._forget_memory(self.frame_encoder(batch))
        self._prepare_encoder()
        return self.accelerate(self._encode, "encoder")

    def accelerate(self, function: TensorFunction, part: Part) -> TensorFunction:
        """Make of a pure function of tensors what this mode runs.

        Args:
            function: part of the network.
            part: which, ``encoder`` or ``decoder``.

        Returns:
            It compiled, as a CUDA graph, both, or itself.
        """
        if part in PARTS[self.compile]:
            function = compile_function(function)
        return self._graphed(function)

    def _graphed(self, function: TensorFunction) -> TensorFunction:
        return GraphedFunction(function) if self._replays_graphs else function

    @property
    def _replays_graphs(self) -> bool:
        return self.device.type == "cuda" and self.mode == "fast"

    @cached_property
    def frame_encoder(self) -> TensorFunction:
        """The image encoder for frames of a video, as `encoder` but before memory's part.

        Where a picture has nothing to remember, and its features say so, a frame may.
        """
        if self.backend == "openvino":
            return openvino_encoder(self)
        if self.packages:
            run = run_packages(self.packages, self.network)
            return PackagedEncoder(self._graphed(run), list(self.packages))
        self._prepare_encoder()
        return self.accelerate(self._encode_frame, "encoder")

    @cached_property
    def recorded_encoder(self) -> TensorFunction:
        """`encoder` for one picture in each of several threads, which do not wait for Python."""
        return self._recorded(self._encode)

    @cached_property
    def _recorded_frame_encoder(self) -> TensorFunction:
        return self._recorded(self._encode_frame)

    def _recorded(self, function: TensorFunction) -> TensorFunction:
        if not self._restates_encoder:  # nobody knows what it does with values
            return function
        self._prepare_encoder()
        with self.computing():
            return record_function(function, torch.zeros(1, 3, self.image_size, self.image_size))

    def split_frame_encoder(self, calls: int) -> TensorFunction:
        """Return `frame_encoder` for so many threads at a time, with one core each."""
        if self.backend == "torch" and not self.packages:
            return self._recorded_frame_encoder
        encode = self.frame_encoder
        return encode.split(calls) if isinstance(encode, OpenVinoEncoder) else encode

    def _prepare_encoder(self) -> None:
        """Make what it remembers before it is compiled, else twice, or recorded."""
        if self.compile != "off":
            self.encode_frame(
                torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)
            )
        elif self._restates_encoder:
            _ = self._patch_places

    def _encode(self, batch: Tensor) -> list[Tensor]:
        """Run the encoder; source: sam2 ``sam2_image_predictor.py: set_image_batch``."""
        return self._forget_memory(self._encode_frame(batch))

    def _forget_memory(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Say in the features of a frame, which are fresh, that there is nothing to remember."""
        levels = list(levels)
        if self.network.directly_add_no_mem_embed:
            levels[-1] = levels[-1] + self.network.no_mem_embed.view(1, -1, 1, 1)
        return levels

    def encode_frame(self, batch: Tensor) -> list[Tensor]:
        """Run the encoder without memory's part; a pure function of one tensor."""
        levels: list[Tensor] = self.network.forward_image(batch)["backbone_fpn"]
        return levels[-self.network.num_feature_levels :]

    def _encode_frame(self, batch: Tensor) -> list[Tensor]:
        """As `encode_frame`, with fewer steps; compilers save them by themselves."""
        if not self._restates_encoder:
            return self.encode_frame(batch)
        levels = trunk.encode(self.network, batch, self._patch_places)
        return levels[-self.network.num_feature_levels :]

    @property
    def _restates_encoder(self) -> bool:
        return self.compile == "off" and trunk.is_known(self.network.image_encoder)

    @cached_property
    def _patch_places(self) -> Tensor:
        return trunk.place_patches(self.network.image_encoder.trunk, self.image_size)

    @contextmanager
    def computing(self, *, reduced: bool = True) -> Iterator[None]:
        """Scope for forward passes: inference mode, in the precision of the mode.

        Args:
            reduced: False computes in full float32 whatever the mode.
        """
        half = reduced and self.dtype != torch.float32
        # Weights are stored as needed, and copies cached in a CUDA graph's memory would dangle.
        autocast = torch.autocast(
            self.device.type, dtype=self.dtype, enabled=half, cache_enabled=False
        )
        with torch.inference_mode(), autocast, self._float32_products(reduced=reduced):
            yield

    def _float32_products(self, *, reduced: bool) -> AbstractContextManager[None]:
        """Allow TF32 in mode ``fast``; in ``strict`` keep others from switching it on meanwhile."""
        if self.device.type != "cuda":
            return nullcontext()
        return TF32.held(changed=reduced and self.mode == "fast" and self.dtype == torch.float32)

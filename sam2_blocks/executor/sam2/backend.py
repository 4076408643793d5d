"""Which backend computes a model, and the parts of the network that OpenVINO computes."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor.backends import Backend, find_backend_problem, has_openvino
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.openvino.functions import Plan, compile_plan

if TYPE_CHECKING:
    from sam2_blocks.executor.sam2.model import LoadedModel

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
FASTER_ON = ("x86_64", "AMD64")
"""Processors on which OpenVINO was measured to be faster than torch."""


def choose_backend(
    name: str, device: torch.device, dtype: torch.dtype, mode: str, level: str
) -> Backend:
    """Turn ``torch``, ``openvino`` or ``auto`` into a backend that is here.

    ``auto`` is torch in mode ``strict``, and in ``fast`` the faster one.

    Args:
        name: as the user wrote it.
        device: where the model is.
        dtype: what it computes in.
        mode: ``strict`` or ``fast``.
        level: what goes through `torch.compile`.

    Raises:
        MissingExtraError: if OpenVINO is asked for and not installed.
        ModelError: if there is no such backend, or it cannot do what else is asked for.
    """
    problem = find_backend_problem(name)
    if problem:
        raise MissingExtraError(problem) if name == "openvino" else ModelError(problem)
    refusal = _find_refusal(device, dtype, level)
    if name == "auto":
        wanted = mode == "fast" and not refusal and platform.machine() in FASTER_ON
        return "openvino" if wanted and has_openvino() else "torch"
    if name == "openvino" and refusal:
        raise ModelError(refusal)
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


def openvino_encoder(model: LoadedModel) -> TensorFunction:
    """Return the encoder of frames in OpenVINO: float32 (B, 3, S, S) to maps, finest first.

    Raises:
        RuntimeError: if OpenVINO cannot do it.
    """
    side = model.image_size
    run = compile_plan(
        Plan(
            function=model.encode_frame,
            example=[torch.zeros(1, 3, side, side)],
            name=f"encoder of {model.key}",
            precision=PRECISIONS[model.dtype],
            threads=torch.get_num_threads(),
            network=model.network,
        )
    )

    def encode(batch: Tensor) -> list[Tensor]:
        levels = [run(picture) for picture in batch.split(1)]  # type: ignore[no-untyped-call]
        return [torch.cat(level) for level in zip(*levels, strict=True)]

    return encode

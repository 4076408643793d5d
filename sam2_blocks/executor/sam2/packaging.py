"""Compiling the image encoder ahead of time, for ``sam2-blocks models compile``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.cache.compiled import check_writable, describe_unkept, keep_compiled
from sam2_blocks.executor.device.compiling import check_level
from sam2_blocks.executor.device.packages import Package, find_package_problem, open_package
from sam2_blocks.executor.device.packaging import compile_package
from sam2_blocks.executor.sam2.loading import load_model, resolve_device, resolve_dtype
from sam2_blocks.executor.sam2.model import LoadedModel, Mode
from sam2_blocks.executor.sam2.packaged import (
    LARGEST_BATCH,
    encoder_weights,
    open_encoder,
    run_packages,
)

MOST_DIFFERENT = 0.1
"""Of a package's features, relative to those of torch; half precision differs by a hundredth."""


@dataclass(frozen=True)
class Made:
    """What became of one size of batch.

    Attributes:
        batch: pictures at once.
        path: where the package lies.
        nbytes: its size.
        seconds: that compiling took; 0 if it was there.
        difference: of its features from torch's, relative, by root mean squares.
    """

    batch: int
    path: Path
    nbytes: int
    seconds: float
    difference: float


def load_for_packages(
    model: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    mode: Mode = "fast",
    input_px: int = 0,
) -> LoadedModel:
    """Load a network to package: with random weights, since packages hold none.

    A model that is known by name need not be on this machine.

    Raises:
        ModelError: if there is no such model, device, dtype or size, or no packages for them.
    """
    target = resolve_device(device)
    problem = find_package_problem(target)
    if problem:
        raise ModelError(problem)
    check_level("encoder", resolve_dtype(dtype, mode, target)[1])
    return load_model(
        model, device=target, dtype=dtype, mode=mode, input_px=input_px, seed=0, backend="torch"
    )


def check_batches(batches: Sequence[int]) -> list[int]:
    """Return the sizes of batches to package, with 1, of which every other can be put together.

    Raises:
        ModelError: if a size cannot be.
    """
    wrong = [size for size in batches if not 1 <= size <= LARGEST_BATCH]
    if wrong:
        raise ModelError(
            f"batches wants numbers of pictures from 1 to {LARGEST_BATCH}, got {wrong[0]}."
        )
    return sorted({1, *batches})


def package_encoder(model: LoadedModel, batch: int) -> Made:
    """Compile the encoder for one size of batch and keep it, unless that was done.

    Args:
        model: computed by torch, as it is; its weights do not matter.
        batch: pictures at once.

    Raises:
        ModelError: if nothing can be compiled here, what was compiled computes something else, or
            it cannot be kept.
    """
    assert model.code is not None
    path, device = model.code.path(batch), model.device
    started, seconds, exported = time.perf_counter(), 0.0, b""
    pictures = _pictures(batch, model.image_size, device)
    package = open_encoder(path, device)
    if package is None:
        with _said_if_unkept(path):
            check_writable(path)
        exported = _compile(model, pictures)
        package = open_package(exported, device)
        seconds = time.perf_counter() - started
    difference = _compare(model, package, pictures)
    if not difference <= MOST_DIFFERENT:  # nor is it a number where features are none
        raise ModelError(
            f"what was compiled for batches of {batch} computes other features than torch, by "
            f"{difference:.0%}. It is not used. Please report it, with what sam2-blocks doctor "
            "prints."
        )
    if exported:
        with _said_if_unkept(path):
            keep_compiled(path, exported)
    return Made(batch, path, path.stat().st_size, seconds, difference)


def _pictures(batch: int, side: int, device: torch.device) -> Tensor:
    """Return normalised pictures of waves, all different."""
    waves = torch.linspace(0, 100 * batch, batch * 3 * side * side, device=device).sin()
    return waves.view(batch, 3, side, side) * 2


@contextmanager
def _said_if_unkept(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(describe_unkept(path, error)) from error


def _compile(model: LoadedModel, pictures: Tensor) -> bytes:
    """Compile the encoder with the casts of its mode, for a batch of this size."""
    weights = encoder_weights(model.network)
    encoder = _Encoder(model)
    names = [f"network.{name}" for name in weights]

    def encode(batch: Tensor, *tensors: Tensor) -> Any:
        given = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(encoder, given, (batch,))

    with model.computing():
        model.encode_frame(pictures)  # makes what it remembers
        return compile_package(
            encode, [pictures, *weights.values()], f"the encoder of {model.spec.model!r}"
        )


class _Encoder(nn.Module):
    """The encoder as the module whose weights are given with each call."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.network = model.network
        self._encode = model.encode_frame

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        return tuple(self._encode(batch))


def _compare(model: LoadedModel, package: Package, pictures: Tensor) -> float:
    """Return how much a package's features differ: the most of any level, relative."""
    run = run_packages({len(pictures): package}, model.network)
    with model.computing():
        pairs = zip(run(pictures), model.encode_frame(pictures), strict=True)
        differences = [
            (ours.float() - theirs.float()).norm() / theirs.float().norm() for ours, theirs in pairs
        ]
        return float(torch.stack(differences).max())  # which is no number if one of them is none

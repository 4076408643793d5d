"""The image encoder as packages of AOTInductor: made once, opened in seconds by later processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2_blocks.errors import message_of
from sam2_blocks.executor.cache.compiled import (
    PACKAGES,
    compiled_path,
    discard_compiled,
    map_compiled,
)
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.device.packages import (
    Package,
    describe_target,
    find_package_problem,
    open_package,
)
from sam2_blocks.installed import version_of

LOGGER = logging.getLogger(__name__)
VERSION = 2
"""Of what is packaged: raise it when the encoder's steps or how they are compiled change."""

LARGEST_BATCH = 16
ENCODER = ("image_encoder.", "sam_mask_decoder.conv_s")
"""Names of the weights that the encoder uses: projections to the decoder's features are part."""


@dataclass(frozen=True)
class EncoderCode:
    """What a package of the encoder is for, whatever its weights.

    Attributes:
        architecture: SHA-256 of the network's configuration.
        input_px: side of the square it sees, 0 as its configuration says.
        dtype: what it computes in.
        device: where.
    """

    architecture: str
    input_px: int
    dtype: torch.dtype
    device: torch.device

    def path(self, batch: int) -> Path:
        """Return where the package for so many pictures at once is, or would be."""
        made_of = f"encoder v{VERSION} of {self.architecture}, {self.input_px}px, {self.dtype}"
        return compiled_path(
            f"{made_of}, batch {batch}, sam2 {version_of('sam2')}, {describe_target(self.device)}",
            PACKAGES,
        )


def find_encoder(code: EncoderCode) -> dict[int, Package]:
    """Open what packages there are, by their size of batch; none where there is a problem.

    One that cannot be opened is deleted, which is said in the log.
    """
    sizes = range(1, LARGEST_BATCH + 1)
    kept = {size: path for size in sizes if (path := code.path(size)).exists()}
    if not kept or find_package_problem(code.device):
        return {}
    found = {size: open_encoder(path, code.device) for size, path in kept.items()}
    opened = {size: package for size, package in found.items() if package is not None}
    return opened if 1 in opened else {}


def open_encoder(path: Path, device: torch.device) -> Package | None:
    """Open a package of the encoder.

    A file that is of no use is deleted; it is kept where only room for temporary files is missing.

    Args:
        path: of the file.
        device: that it was compiled for.

    Returns:
        The package; None if there is none, or it cannot be opened, which the log says.
    """
    content = map_compiled(path)
    if content is None:
        return None
    try:
        return open_package(content.tobytes(), device)
    except OSError as error:
        LOGGER.warning(
            "the compiled network %s is not used: %s. Make room for temporary files, or let TMPDIR "
            "name another folder.",
            path,
            error,
        )
    except (RuntimeError, TypeError) as error:
        discard_compiled(path, message_of(error).splitlines()[0])
    return None


class PackagedEncoder:
    """The encoder of frames: float32 (B, 3, S, S) to maps, finest first.

    Args:
        run: of as many pictures as one of ``sizes``.
        sizes: of batches, 1 among them; other batches are split.
    """

    def __init__(self, run: TensorFunction, sizes: Sequence[int]) -> None:
        self._run = run
        self._sizes = sorted(sizes, reverse=True)

    def __call__(self, batch: Tensor) -> list[Tensor]:
        """Encode pictures in as few pieces as there can be."""
        pieces = [self._run(piece) for piece in batch.split(self.split_sizes(len(batch)))]  # type: ignore[no-untyped-call]
        if len(pieces) == 1:
            return list(pieces[0])
        return [torch.cat(level) for level in zip(*pieces, strict=True)]

    def split_sizes(self, count: int) -> list[int]:
        """Return the sizes of the pieces of a batch, the largest first."""
        sizes = []
        for size in self._sizes:
            sizes += [size] * (count // size)
            count %= size
        return sizes


def run_packages(packages: Mapping[int, Package], network: nn.Module) -> TensorFunction:
    """Return a function that encodes a batch with the package of its size.

    Args:
        packages: by their size of batch.
        network: whose weights they run with.
    """
    weights = list(encoder_weights(network).values())
    return lambda batch: packages[len(batch)](batch, *weights)


def encoder_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return what of a network's weights the encoder uses, by name."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if name.startswith(ENCODER)}

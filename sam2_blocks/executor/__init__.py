"""The executors: pictures and prompts in, exact masks out. The only torch outside `hosts`.

Importing this package imports no torch; `load` does, on its first call. `weights` brings a model,
`sam2` runs it, and `cache`, `device` and `rle` are what an executor of any family needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.backends import BackendChoice, default_backend
from sam2_blocks.executor.cache.lru import DEFAULT_CACHE_ENTRIES, DEFAULT_DISK_CACHE_BYTES

if TYPE_CHECKING:
    import torch

    from sam2_blocks.executor.sam2.executor import Sam2Executor

DEFAULT_CACHE_BYTES = 512 * 2**20
CACHE_DIR_VARIABLE = "SAM2_BLOCKS_EMBEDDING_CACHE_DIR"

__all__ = ["DEFAULT_CACHE_BYTES", "load"]


def load(
    model: str | Path = "nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    mode: Literal["strict", "fast"] | None = None,
    compile: Literal["off", "encoder", "all"] = "off",
    backend: BackendChoice | None = None,
    input_px: int = 0,
    config: str | Path | None = None,
    seed: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    cache_entries: int = DEFAULT_CACHE_ENTRIES,
    host_cache_bytes: int | None = None,
    cache_dir: str | Path | None = None,
    disk_cache_bytes: int = DEFAULT_DISK_CACHE_BYTES,
    offline: bool | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Sam2Executor:
    """Load a model and return its executor.

    Args:
        model: a name in the catalogue (``nano``, ``hiera_tiny``, ``sam2/hiera_large``, …), or the
            path of a checkpoint (``.pt`` or ``.safetensors``).
        device: ``auto`` (CUDA, else Apple's MPS, else CPU), ``cuda``, ``cuda:N``, ``mps``, ``cpu``;
            or a ``torch.device``.
        dtype: ``auto`` (float32; bfloat16 in mode ``fast``, but on a CPU without instructions for
            it), ``float32``, ``bfloat16`` or ``float16``; or a ``torch.dtype``. ``int8``, on a CPU
            with OpenVINO, is for models that ``sam2-blocks models calibrate`` measured on this
            machine: linear layers of the encoder in int8, the rest as in mode ``fast``; there it
            is also what ``auto`` is in mode ``fast`` with OpenVINO.
        mode: ``strict`` is float32, with the masks of the official predictor on the same device;
            ``fast`` computes in half precision, or in TF32 if ``dtype`` is float32 and the device
            has it, and replays CUDA graphs. By default it follows ``dtype``.
        compile: what goes through `torch.compile`, in mode ``fast``: nothing, the image encoder, or
            the mask decoder too. It takes minutes the first time; what is compiled is kept beside
            the weights, or where ``TORCHINDUCTOR_CACHE_DIR`` says. An encoder that ``sam2-blocks
            models compile`` compiled on this machine is opened in a moment.
        backend: what computes on a CPU: ``torch``; ``openvino``, which is faster and wants the
            extra of that name; or ``auto``, as by default: what the variable
            ``SAM2_BLOCKS_BACKEND`` says, else torch in mode ``strict`` and the faster of those
            installed in ``fast``. What OpenVINO compiles is kept beside the weights.
        input_px: side of the square the network sees, a multiple of 32; 0 is what it was trained
            with. Half of it is a quarter of the work, and coarser masks.
        config: architecture of a local checkpoint: a catalogue name or the path of a YAML file
            laid out like those of the ``sam2`` package; by default it is recognised.
        seed: use random weights from this seed and read no checkpoint; for tests and benchmarks.
        cache_bytes: how many bytes of embeddings to keep on the device; 0 keeps none, and turns
            off what is not asked for below. The decoder keeps what it derives from each picture
            beside, in as many bytes at most and never more than 256 MiB (1 GiB on CUDA).
        cache_entries: how many embeddings to keep on the device.
        host_cache_bytes: how many bytes of embeddings to keep in host memory when the device has no
            room for them; by default 2 GiB beside CUDA, else 0.
        cache_dir: folder to keep embeddings in from one process to the next; by default the
            variable ``SAM2_BLOCKS_EMBEDDING_CACHE_DIR`` names it, and if it does not there is none.
        disk_cache_bytes: bound of that folder.
        offline: never download; by default as the variable ``SAM2_BLOCKS_OFFLINE`` says.
        progress: called with bytes done and bytes in total (None if unknown) while downloading.

    Raises:
        ModelError: if the name is unknown, the weights are missing or wrong, or the device, dtype,
            compiler, backend or size cannot be used here, or a bound is no whole number.
        MissingExtraError: if the backend is not installed.

    Example:
        >>> executor = load_executor("nano", device="cpu")
        >>> executor.spec.model, executor.spec.dtype
        ('nano', 'float32')
    """
    _check_bounds(
        cache_bytes=cache_bytes,
        cache_entries=cache_entries,
        host_cache_bytes=0 if host_cache_bytes is None else host_cache_bytes,
        disk_cache_bytes=disk_cache_bytes,
        seed=0 if seed is None else seed,
    )
    if not isinstance(cache_dir, str | Path | None):
        raise ModelError(f"cache_dir wants the path of a folder, got {cache_dir!r}.")
    from sam2_blocks.executor.sam2.executor import Sam2Executor
    from sam2_blocks.executor.sam2.loading import load_model

    loaded = load_model(
        model,
        device=device,
        dtype=dtype,
        mode=mode,
        compile=compile,
        backend=default_backend() if backend in (None, "auto") else backend,
        input_px=input_px,
        config=config,
        seed=seed,
        offline=offline,
        progress=progress,
    )
    if cache_dir is None and cache_bytes:
        cache_dir = os.environ.get(CACHE_DIR_VARIABLE)
    return Sam2Executor(
        loaded,
        cache_bytes=cache_bytes,
        cache_entries=cache_entries,
        host_cache_bytes=host_cache_bytes,
        cache_dir=Path(cache_dir).expanduser() if cache_dir else None,
        disk_cache_bytes=disk_cache_bytes,
    )


def _check_bounds(**bounds: object) -> None:
    for name, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise ModelError(f"{name} wants a whole number, 0 or more, got {value!r}.")


load_executor = load  # its name at the top of the package

"""A file to a model of onnxruntime that is ready to run."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sam2_blocks import ModelError
from sam2_blocks.values import ExecutorSpec

Arrays = Mapping[str, NDArray[Any]]

PICTURES_PER_BATCH = 16
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A network that takes pictures; safe to call from several threads.

    Attributes:
        spec: resolved model, device and dtype.
        session: of onnxruntime.
        pictures: name of the input that takes them.
        sizes: name of the input that takes their width and height, int64 (B, 2), if there is one.
        input_shape: (B, 3, H, W); None where the model takes any.
        metadata: what the exporter wrote beside the network.
    """

    spec: ExecutorSpec
    session: Any
    pictures: str
    sizes: str | None
    input_shape: tuple[int | None, ...]
    metadata: Mapping[str, Any]

    def input_hw(self, size_px: int) -> tuple[int, int]:
        """Height and width of its input: its own, the exporter's word, or this."""
        said = self.metadata.get("imgsz")
        pair = said if isinstance(said, (list, tuple)) and len(said) == 2 else [size_px, size_px]
        height, width = (own or int(s) for own, s in zip(self.input_shape[2:], pair, strict=True))
        return height, width

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that the exporter wrote, in the order of their numbers; empty if none."""
        names = self.metadata.get("names")
        if isinstance(names, (list, tuple)):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
            return ()
        return tuple(str(names[number]) for number in range(len(names)))

    def run(self, batch: NDArray[np.float32]) -> Arrays:
        """Run the network.

        Args:
            batch: float32, (B, 3, H, W), any number of pictures.

        Returns:
            Its outputs by name, with B rows each.
        """
        own = self.input_shape[0]
        size = own or PICTURES_PER_BATCH
        parts = [self._run(batch[at : at + size], own) for at in range(0, len(batch), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, batch: NDArray[np.float32], fixed: int | None) -> Arrays:
        count = len(batch)
        if fixed and count < fixed:
            batch = np.concatenate([batch, np.repeat(batch[-1:], fixed - count, axis=0)])
        given = {self.pictures: batch.astype(np.dtype(self.spec.dtype))}
        if self.sizes:
            given[self.sizes] = np.full((len(batch), 2), batch.shape[:1:-1], np.int64)
        names = [output.name for output in self.session.get_outputs()]
        made = dict(zip(names, self.session.run(names, given), strict=True))
        return {name: array[:count] for name, array in made.items() if np.ndim(array)}


def load(path: str, *, device: str = "auto") -> OnnxModel:
    """Load a model and look at what it takes.

    Args:
        path: the file.
        device: ``auto`` (CUDA where onnxruntime has it, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: if it cannot be loaded, or takes no pictures.
    """
    provider, options, resolved = _provider(device)
    try:
        session = onnxruntime.InferenceSession(path, providers=[(provider, options)])
    except Exception as error:  # its errors have no common class
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"onnxruntime cannot load {path!r}: {reason}") from error
    pictures, sizes = _inputs(path, session.get_inputs())
    shape = tuple(side if isinstance(side, int) else None for side in pictures.shape)
    dtype = np.dtype(FLOATS[pictures.type]).name
    return OnnxModel(
        spec=ExecutorSpec(path, resolved, dtype, "onnx"),
        session=session,
        pictures=pictures.name,
        sizes=sizes,
        input_shape=shape,
        metadata=_metadata(session.get_modelmeta().custom_metadata_map),
    )


def _provider(device: str) -> tuple[str, dict[str, str], str]:
    """The part of onnxruntime that computes on a device, its options, and the device's name."""
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return "CPUExecutionProvider", {}, "cpu"
    if kind != "cuda":
        raise ModelError(f"onnx/detect runs on cpu and cuda, not on {device!r}.")
    if not has_cuda:
        raise ModelError(
            f"device {device!r}: this onnxruntime is built for CPUs. "
            "Run: pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    return "CUDAExecutionProvider", {"device_id": number or "0"}, f"cuda:{number or 0}"


def _inputs(path: str, inputs: Sequence[Any]) -> tuple[Any, str | None]:
    """Find the input that takes pictures, and the one that takes their sizes."""
    pictures = [one for one in inputs if one.type in FLOATS and len(one.shape) == 4]
    others = [one for one in inputs if one not in pictures]
    sizes = [one for one in others if one.type == "tensor(int64)" and len(one.shape) == 2]
    takes = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    if len(pictures) != 1 or len(sizes) != len(others) or len(sizes) > 1:
        raise ModelError(
            f"{path!r} wants one input of pictures, float (B, 3, H, W), and at most one of their "
            f"sizes, int64 (B, 2); it takes {takes}. Export it again, with float pictures."
        )
    channels = pictures[0].shape[1]
    if isinstance(channels, int) and channels != 3:
        raise ModelError(
            f"{path!r} takes pictures of shape {pictures[0].shape}, not (B, 3, H, W) with the "
            "channels of a colour picture second. Export it again with channels first."
        )
    return pictures[0], sizes[0].name if sizes else None


def _metadata(written: Mapping[str, str]) -> dict[str, Any]:
    """Read what exporters write as Python literals; text that is none stays text."""
    made: dict[str, Any] = {}
    for key, text in written.items():
        try:
            made[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            made[key] = text
    return made

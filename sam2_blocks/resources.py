"""What steps share while a pipeline runs: loaded models and the folder for their files."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable
from weakref import WeakValueDictionary

from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.values import (
    AutomaticMasks,
    AutomaticSettings,
    Embedding,
    ExecutorSpec,
    Float32Array,
    Image,
    MaskPrediction,
    PromptSet,
)


@runtime_checkable
class Executor(Protocol):
    """A loaded model. Stateless for callers and safe to call from several threads."""

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device and dtype; every embedding it makes carries it."""
        ...

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode pictures of any sizes, in real batches."""
        ...

    def segment(
        self,
        items: Sequence[tuple[Embedding, PromptSet]],
        *,
        multimask_output: bool = True,
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        return_candidates: bool = False,
    ) -> list[MaskPrediction]:
        """Decode the prompts of several images together."""
        ...


@runtime_checkable
class MaskProposer(Protocol):
    """An executor that can also segment without prompts; see `sam2_blocks.automatic`.

    Not part of `Executor`, so that one without it stays whole.
    """

    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        *,
        return_logits: bool = False,
    ) -> AutomaticMasks:
        """Decode one foreground click a row and keep every mask that passes the filters.

        Args:
            embedding: one that this executor made.
            points_xy: float32, (P, 2), pixels of the original image.
            settings: thresholds of the filters; boxes are suppressed later.
            return_logits: keep the low-resolution logits too.

        Returns:
            None to three masks a point, in the order of the points.
        """
        ...


ExecutorFactory = Callable[..., Executor]
"""``factory(model, *, device, dtype) -> Executor``"""

DEFAULT_FACTORY = "sam2"

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")

LOCAL_MODELS_SWITCH = "SAM2_BLOCKS_LOCAL_MODELS"
"""Environment variable that lets strangers' workflows name checkpoints of the machine."""


def is_checkpoint(model: str) -> bool:
    """Whether a model's name is the path of a checkpoint."""
    return Path(model).suffix in CHECKPOINT_SUFFIXES


class Resources:
    """Registry of executors shared by all steps, threads and pipelines that hold it.

    A model name such as ``mine:large`` is loaded by the factory registered as ``mine``; a name
    without such a prefix by the built-in ``sam2``.

    Args:
        factories: executor factories by name, as plugins registered them.
        out_dir: folder that relative paths of written files start from.
        kept: items that an earlier run finished in that folder and this one does not do again,
            each with its files: a block that writes one file for all items keeps what it says of
            them.
        shared_before: files for all items that the earlier run wrote, each with the class of the
            block that did.
        local_models: whether a model may be the path of a checkpoint on this machine.
    """

    def __init__(
        self,
        factories: Mapping[str, ExecutorFactory],
        out_dir: str | Path = ".",
        *,
        kept: Mapping[str, Sequence[Path]] | None = None,
        shared_before: Mapping[Path, str] | None = None,
        local_models: bool = True,
    ) -> None:
        self.out_dir = Path(out_dir)
        self.kept = dict(kept or {})
        self.shared_before = dict(shared_before or {})
        self._local_models = local_models
        self._factories = dict(factories)
        self._executors: dict[ExecutorSpec, Executor] = {}
        self._writers: WeakValueDictionary[Path, object] = WeakValueDictionary()
        self._kept_files = {file: item for item, files in self.kept.items() for file in files}
        self._claimed: set[Path] = set()
        self._shared: dict[Path, str] = {}
        self._files: dict[str, dict[Path, None]] = defaultdict(dict)
        self._lock = threading.Lock()

    def executor(self, model: str, *, device: str = "auto", dtype: str = "auto") -> Executor:
        """Return the executor of this configuration, loading it on first use.

        Raises:
            ModelError: if the model, its device or its dtype is not to be had.
        """
        if not self._local_models and is_checkpoint(model):
            raise ModelError(
                f"model {model!r} is a file, which whoever writes a workflow may not open here. "
                f"Use a model by its name, or set {LOCAL_MODELS_SWITCH}=1 where the host runs."
            )
        asked = ExecutorSpec(model, device, dtype)
        with self._lock:
            if asked not in self._executors:
                loaded = self._factory_of(model)(model, device=device, dtype=dtype)
                # "auto" and what it resolves to are one executor, whichever is asked for first.
                self._executors[asked] = self._executors.setdefault(loaded.spec, loaded)
            return self._executors[asked]

    def claim_file(self, path: str | Path, writer: object, item: str = "") -> Path:
        """Take a file for one block alone, as long as the block is there.

        Args:
            path: the file, relative to `out_dir`.
            writer: the block.
            item: the one whose results the file holds, if not those of all.

        Returns:
            The path to write to.

        Raises:
            ValueError: if it is not below `out_dir`, another block writes it, or it is the file
                of an item that is not done again.
        """
        target = self.reserve_file(path, writer)
        owner = self._kept_files.get(target, item)
        if owner != item:
            raise ValueError(f"{target} is the file of {owner!r}, which an earlier run finished")
        with self._lock:
            self._claimed.add(target.resolve())
            if item:
                self._files[item][target] = None
            else:
                self._shared[target] = type(writer).__qualname__
        return target

    def reserve_file(self, path: str | Path, writer: object) -> Path:
        """Take a file without noting it; see `claim_file`."""
        target = self.out_dir / path
        if not target.resolve().is_relative_to(self.out_dir.resolve()):
            raise ValueError(
                f"{str(path)!r} is not below the output folder {str(self.out_dir)!r}; give 'path' "
                "relative to it"
            )
        with self._lock:
            if self._writers.setdefault(target.resolve(), writer) is not writer:
                raise ValueError(f"another step writes {target}, too; give each its own 'path'")
        return target

    def left_files(self, writer: object) -> list[Path]:
        """Take the files for all items that blocks of this class wrote before and none has now.

        Called when a run ends: what they say of items that failed meanwhile is out of date.
        """
        own = type(writer).__qualname__
        left = [path for path, name in self.shared_before.items() if name == own]
        return [
            self.claim_file(path.relative_to(self.out_dir), writer)
            for path in left
            if self.kept and path not in self._shared
        ]

    def files_of(self, item: str) -> list[Path]:
        """Files that blocks took for an item."""
        with self._lock:
            return list(self._files.get(item, ()))

    def shared_files(self) -> dict[Path, str]:
        """Files that blocks took for all items, each with the class of its block."""
        with self._lock:
            return dict(self._shared)

    def is_claimed(self, path: Path) -> bool:
        """Whether a block took this file in this run."""
        with self._lock:
            return path.resolve() in self._claimed

    def executor_of(self, embedding: Embedding) -> Executor:
        """Return the executor that made this embedding."""
        model, device, dtype = embedding.spec
        return self.executor(model, device=device, dtype=dtype)

    def _factory_of(self, model: str) -> ExecutorFactory:
        prefix, colon, _ = model.partition(":")
        name = prefix if colon and prefix in self._factories else DEFAULT_FACTORY
        if name not in self._factories:
            hint = did_you_mean(name, self._factories)
            raise ModelError(f"no executor is registered as {name!r} to load {model!r}.{hint}")
        return self._factories[name]

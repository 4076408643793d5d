"""What steps share while a pipeline runs: loaded models and the files that they write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executors import DEFAULT_FACTORY, Executor, ExecutorFactory, is_checkpoint
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.values import Embedding, ExecutorSpec

LOGGER = logging.getLogger(__name__)
LOCAL_MODELS_SWITCH = "SAM2_BLOCKS_LOCAL_MODELS"
"""Environment variable that lets strangers' workflows name checkpoints of the machine."""


class Resources:
    """Registry of executors shared by all steps, threads and pipelines that hold it.

    A model name such as ``mine:large`` is loaded by the factory registered as ``mine``; a name
    without such a prefix by the built-in ``sam2``.

    Args:
        factories: executor factories by name, as plugins registered them.
        out_dir: folder that relative paths of written files start from.
        files: the files that blocks write; new ones in ``out_dir`` if not given.
        local_models: whether a model may be the path of a checkpoint on this machine.
    """

    def __init__(
        self,
        factories: Mapping[str, ExecutorFactory],
        out_dir: str | Path = ".",
        *,
        files: OutputFiles | None = None,
        local_models: bool = True,
    ) -> None:
        self.files = files or OutputFiles(out_dir)
        self._local_models = local_models
        self._factories = dict(factories)
        self._executors: dict[ExecutorSpec, Executor] = {}
        self._lock = threading.Lock()

    @property
    def out_dir(self) -> Path:
        """The folder that relative paths of written files start from."""
        return self.files.folder

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
                LOGGER.info("loading %s", model)
                loaded = self._factory_of(model)(model, device=device, dtype=dtype)
                # "auto" and what it resolves to are one executor, whichever is asked for first.
                self._executors[asked] = self._executors.setdefault(loaded.spec, loaded)
            return self._executors[asked]

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

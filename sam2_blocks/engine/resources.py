"""What steps share while a pipeline runs: loaded models and the files that they write."""

from __future__ import annotations

import copy
import gc
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from sam2_blocks.clock import stage
from sam2_blocks.engine.loads import Loads
from sam2_blocks.engine.memory import BudgetOf, ModelMemory
from sam2_blocks.engine.qualified import qualify
from sam2_blocks.errors import ModelError, as_error, did_you_mean, message_of
from sam2_blocks.executors import (
    Executor,
    ExecutorFactory,
    Family,
    ForgetsUnused,
    Loaded,
    require,
)
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.values import DEFAULT_FAMILY, Embedding, full_name

LOGGER = logging.getLogger(__name__)
LOCAL_MODELS_SWITCH = "SAM2_BLOCKS_LOCAL_MODELS"
"""Environment variable that lets strangers' workflows name checkpoints of the machine."""

HUB_MODELS_VARIABLE = "SAM2_BLOCKS_HUB_MODELS"
"""Environment variable: what strangers' workflows may download, full names between commas."""

Ability = TypeVar("Ability")


class Asked(NamedTuple):
    """What a model is asked for by; ``auto`` is not resolved."""

    model: str
    device: str
    dtype: str
    backend: str = "auto"
    input_px: int = 0

    def __str__(self) -> str:
        return f"model {self.model!r}"

    def of(self, family: Family) -> Asked:
        """Leave out what a family has no choice in."""
        defaults = self._field_defaults.items()
        return self._replace(
            **{name: value for name, value in defaults if name not in family.options}
        )


NO_CHOICE = {"backend": ("auto", "torch"), "input_px": (0,)}
"""What may be asked of a family that does not let it be chosen."""


class Resources:
    """Registry of loaded models shared by all steps, threads and pipelines that hold it.

    A model name such as ``mine:large`` is loaded by the family registered as ``mine``; a name
    without such a prefix by the built-in ``sam2``, or the family that whoever asks names. Each is
    loaded once, on first use; a model that is loaded never waits for one that is not.

    Args:
        families: by name, as plugins registered them; a bare factory does, too.
        out_dir: folder that relative paths of written files start from.
        files: the files that blocks write; new ones in ``out_dir`` if not given.
        local_models: whether a model may be the path of a checkpoint on this machine.
        budget_of: bytes that the models of a device may take together; what was used the longest
            ago is given up for what is asked for. See `sam2_blocks.engine.memory`.
        pictures_pass: whether pictures come once, as in a run over a data set; then what models
            keep of those of earlier micro-batches goes, and memory does not grow.

    Example:
        >>> from sam2_blocks.testing import FakeExecutor
        >>> resources = Resources({"mine": FakeExecutor})
        >>> resources.executor("mine:large").spec.full_name
        'mine:large'
    """

    def __init__(
        self,
        families: Mapping[str, Family | ExecutorFactory],
        out_dir: str | Path = ".",
        *,
        files: OutputFiles | None = None,
        local_models: bool = True,
        budget_of: BudgetOf | None = None,
        pictures_pass: bool = False,
    ) -> None:
        self.files = files or OutputFiles(out_dir)
        self._local_models = local_models
        self._families = as_families(families)
        self._loads: Loads[Asked, Loaded] = Loads()
        self._memory = ModelMemory(budget_of)
        self._pictures_pass = pictures_pass
        self._refused: dict[Asked, str] | None = None

    def of_a_run(self) -> Resources:
        """Return a copy with the same models, but files of its own, for one run.

        A model that cannot be loaded is asked for once in it, and not by every item that names it.
        """
        own = copy.copy(self)
        own._refused = {}
        return own

    @property
    def out_dir(self) -> Path:
        """The folder that relative paths of written files start from."""
        return self.files.folder

    def executor(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        input_px: int = 0,
    ) -> Executor:
        """Return the executor of this configuration, loading it on first use.

        It is `model` with the ability `Executor`, and its arguments are those of `model`.

        Raises:
            ModelError: if the model, its device or its dtype is not to be had, or it is no
                executor.
        """
        return self.model(
            model, Executor, device=device, dtype=dtype, backend=backend, input_px=input_px
        )

    def executor_of(self, embedding: Embedding) -> Executor:
        """Return the executor that made this embedding, and can decode it.

        Raises:
            ModelError: if its model cannot be loaded again.
        """
        spec = embedding.spec
        return self.executor(
            spec.full_name,
            device=spec.device,
            dtype=spec.dtype,
            backend=spec.backend,
            input_px=spec.input_px,
        )

    def model(
        self,
        name: str,
        ability: type[Ability],
        *,
        family: str = DEFAULT_FAMILY,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        input_px: int = 0,
    ) -> Ability:
        """Return a loaded model that can do what is needed, of whatever family.

        Args:
            name: with the prefix of its family, or without.
            ability: a protocol of `sam2_blocks.executors`, or a ``@runtime_checkable`` one of your
                own.
            family: the one that loads names without a prefix.
            device: as the family understands it, such as ``auto`` or ``cuda:0``.
            dtype: as the family understands it, such as ``auto`` or ``bfloat16``.
            backend: what computes it, of families that have several.
            input_px: side of the square the network sees, of families that let it be chosen; 0
                is what the model was trained with.

        Raises:
            ModelError: if it cannot be loaded, or lacks the ability.
        """
        loaded = self.loaded(
            name, family=family, device=device, dtype=dtype, backend=backend, input_px=input_px
        )
        return require(loaded, ability)

    def loaded(
        self,
        name: str,
        *,
        family: str = DEFAULT_FAMILY,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        input_px: int = 0,
    ) -> Loaded:
        """Return a loaded model, whatever it can do; the arguments are those of `model`.

        Raises:
            ModelError: if it cannot be loaded, or its family is not registered.
        """
        family = family_of(name, self._families, family)
        registered = self._families.get(family)
        if registered is None:
            hint = did_you_mean(family, self._families)
            raise ModelError(f"no executor is registered as {family!r} to load {name!r}.{hint}")
        if not self._local_models:
            _check_stranger(registered, name, family)
        asked = _ask(registered, Asked(full_name(name, family), device, dtype, backend, input_px))
        if self._refused and asked in self._refused:
            raise ModelError(self._refused[asked])
        try:
            found = self._loads.get(asked, lambda: self._load(registered, name, family, asked))
        except ModelError as error:
            if self._refused is not None:
                self._refused[asked] = str(error)
            raise
        self._make_room(found)
        return found

    def end_batch(self) -> None:
        """Let models forget the pictures of earlier micro-batches, where pictures come once."""
        if self._pictures_pass:
            for model in self._loads.made():
                if isinstance(model, ForgetsUnused):
                    model.forget_unused()

    def _make_room(self, model: Loaded) -> None:
        """Give up models that the budget has no room for beside the one that is used now."""
        too_many = self._memory.use(model)
        if not too_many:
            return
        while too_many:
            self._loads.give_up(too_many.pop())
        gc.collect()  # parts of a network may know each other in circles

    @stage("load")
    def _load(self, registered: Family, name: str, family: str, asked: Asked) -> Loaded:
        LOGGER.info("loading %s", name)
        try:
            chosen = {option: getattr(asked, option) for option in registered.options}
            made = registered.load(name, device=asked.device, dtype=asked.dtype, **chosen)
            if not isinstance(made, Loaded):
                raise TypeError(f"it returned {type(made).__name__}, which has no 'spec'")
            loaded = qualify(made, family)
        except ModelError:
            raise
        except BaseException as error:  # a plugin's code may fail in any way
            cause = as_error(error)
            raise ModelError(
                f"the family {family!r} could not load {asked.model!r}: "
                f"{type(cause).__name__}: {message_of(cause)}"
            ) from cause
        # "auto" and what it resolves to are one model, whichever is asked for first.
        spec = loaded.spec
        resolved = Asked(spec.full_name, spec.device, spec.dtype, spec.backend, spec.input_px)
        return self._loads.keep(resolved.of(registered), loaded)


def _ask(registered: Family, asked: Asked) -> Asked:
    """Return the key by which a model is kept, which leaves out what its family cannot choose.

    Raises:
        ModelError: if an option is chosen that the family does not have.
    """
    for option, unchosen in NO_CHOICE.items():
        value = getattr(asked, option)
        if option not in registered.options and value not in unchosen:
            raise ModelError(
                f"{asked} is of a family that has no {option!r}, and {value!r} is asked for. "
                f"Leave {option!r} out."
            )
    return asked.of(registered)


def _check_stranger(registered: Family, name: str, family: str) -> None:
    """Refuse files and downloads that a stranger's workflow may not cause on this machine.

    Raises:
        ModelError: if the name means a file, or a download that the operator did not list.
    """
    bare = name.removeprefix(f"{family}:")
    if registered.is_file(bare):
        raise ModelError(
            f"model {name!r} is a file, which whoever writes a workflow may not open here. "
            f"Use a model by its name, or set {LOCAL_MODELS_SWITCH}=1 where the host runs."
        )
    listed = {text.strip() for text in os.environ.get(HUB_MODELS_VARIABLE, "").split(",")}
    if registered.is_download(bare) and full_name(name, family) not in listed:
        raise ModelError(
            f"model {name!r} is downloaded from a hub, and is none that whoever operates this "
            f"host listed. Add {full_name(name, family)!r} to {HUB_MODELS_VARIABLE} where the "
            "host runs."
        )


def as_families(families: Mapping[str, Family | ExecutorFactory]) -> dict[str, Family]:
    """Make a family of each bare factory."""
    return {
        name: given if isinstance(given, Family) else Family(given)
        for name, given in families.items()
    }


def family_of(name: str, families: Mapping[str, object], otherwise: str = DEFAULT_FAMILY) -> str:
    """Return the name of the family that loads a model.

    Args:
        name: of the model, with or without the prefix of a family.
        families: those that exist, by name.
        otherwise: the family of names without a prefix.
    """
    prefix, colon, _ = name.partition(":")
    return prefix if colon and prefix in families else otherwise

"""One run of a pipeline that a stranger waits for: within the limits, and only while he waits.

A thread cannot be stopped from outside. So a `Run` is looked at before every step, and, as steps
may be long, at every call of a model; the models refuse what is too large there, too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pluggy
from pydantic_core import to_json

from sam2_blocks.engine import hookspecs
from sam2_blocks.engine.hookspecs import PROJECT, hookimpl
from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Loaded
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.service.errors import (
    GivenUpError,
    RequestError,
    RunTooLargeError,
    TooLargeError,
)
from sam2_blocks.service.models import ServedModels
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.watched import watched
from sam2_blocks.values import DEFAULT_FAMILY, PromptSet


class Run:
    """Tells the thread of one run when to stop, and what is too much.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._given_up = threading.Event()
        self._prompts = 0  # that the step which runs has asked for

    def give_up(self) -> None:
        """Let the run end at its next step or call of a model; nobody waits any more."""
        self._given_up.set()

    def check(self) -> None:
        """Go on only if somebody still waits.

        Raises:
            GivenUpError: if nobody does.
        """
        if self._given_up.is_set():
            raise GivenUpError("nobody waits for the answer any more.")

    @hookimpl
    def before_step(self) -> None:
        """See `check`; prompts are counted anew."""
        self.check()
        self._prompts = 0

    def watch(self, plugins: Plugins) -> Plugins:
        """Return the same plugins, whose hooks this run hears, too, and no other run."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        for name, plugin in plugins.manager.list_name_plugin():
            if plugin is not None:  # a blocked name
                manager.register(plugin, name)
        manager.register(self, "the run of a request")
        return replace(plugins, manager=manager)

    def check_prompts(self, prompt_sets: Sequence[PromptSet]) -> None:
        """Check what a step asks a model for, in all its calls.

        Raises:
            RunTooLargeError: if there are too many prompts, or one has too many points.
        """
        limits = self._settings
        self._prompts += sum(map(len, prompt_sets))
        if self._prompts > limits.max_prompts:
            raise RunTooLargeError(
                f"there are {self._prompts} prompts, the limit is {limits.max_prompts}."
            )
        points = (prompt.point_coords for prompts in prompt_sets for prompt in prompts.prompts)
        most = max((len(coords) for coords in points if coords is not None), default=0)
        if most > limits.max_points:
            raise RunTooLargeError(f"a prompt has {most} points, the limit is {limits.max_points}.")

    def answer(self, outputs: Mapping[str, Any], pipeline: Pipeline) -> dict[str, Any]:
        """Make plain data of the outputs, by their kinds.

        Raises:
            RequestError: if one cannot be plain data.
            GivenUpError: if nobody waits any more.
            TooLargeError: if the answer is too large.
        """
        limit = self._settings.max_answer_bytes
        plain: dict[str, Any] = {}
        nbytes = 0
        for name, value in outputs.items():
            self.check()
            try:
                plain[name] = pipeline.dump(name, value)
            except TypeError as error:
                raise RequestError(f"pipeline: {error}. Leave it out.") from error
            nbytes += len(to_json(plain[name], inf_nan_mode="null"))
            if nbytes > limit:
                raise TooLargeError(
                    f"pipeline: output {name!r} makes the answer larger than {limit} bytes. "
                    "Name fewer outputs, or send smaller images."
                )
        return plain


class RunModels(Resources):
    """The served models, as the steps of one run get them.

    Args:
        models: the models.
        run: asked before each call.
    """

    def __init__(self, models: ServedModels, run: Run) -> None:
        super().__init__({}, files=_RunFiles(models.files))
        self._models = models
        self._run = run

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
        """Return what the run may use of a model; see `ServedModels.loaded`."""
        model = self._models.loaded(
            name, family=family, device=device, dtype=dtype, backend=backend, input_px=input_px
        )
        return watched(model, self._run)


class _RunFiles(OutputFiles):
    """The files of one run, none of which another run writes meanwhile."""

    def __init__(self, of_all_runs: OutputFiles) -> None:
        super().__init__(of_all_runs.folder)
        self._of_all_runs = of_all_runs

    def reserve(self, path: str | Path, writer: object) -> tuple[Path, str]:
        """Take a file without noting it; see `OutputFiles.claim`."""
        self._of_all_runs.reserve(path, writer)
        return super().reserve(path, writer)

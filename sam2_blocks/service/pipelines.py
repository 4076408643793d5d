"""Pipelines over the wire: checked, run on one item, their outputs as plain data.

Anybody may send a pipeline, so it gets the served models, and no block that touches the files of
this machine; pipelines that the operator put into the service's folder may use every block. A step
that names no model gets the service's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.records import Item, ItemResult
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import PipelineError, Problem, Sam2BlocksError, StepError, did_you_mean
from sam2_blocks.kinds import LIST_OF, element_kind
from sam2_blocks.language.manifest import iter_yaml_files
from sam2_blocks.language.pipeline import Pipeline, Step, load_pipeline
from sam2_blocks.masks.stopping import stopping
from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service.core import Service
from sam2_blocks.service.errors import RequestError, UnknownNameError
from sam2_blocks.service.runs import Run, RunModels
from sam2_blocks.service.threads import Workers, to_the_end
from sam2_blocks.values import DEFAULT_FAMILY, ExecutorSpec

UNSENDABLE = "image_embedding"
"""Megabytes that only the model that made them can use."""
THREADS = 4


class PipelineRunner:
    """Runs pipelines with the models of a service.

    Args:
        service: whose models and limits they get.
        plugins: where blocks and kinds come from.
        folder: YAML pipelines of the operator, run by name; none if not given.

    Attributes:
        workers: the threads in which they run.

    Raises:
        PipelineError: if one of them is wrong.
    """

    def __init__(self, service: Service, plugins: Plugins, folder: Path | None = None) -> None:
        self._service = service
        self._plugins = plugins
        self._named = {name: self._load(file) for name, file in _pipelines_in(folder).items()}
        self.workers = Workers(THREADS, "sam2-blocks-pipeline")
        self._runs: set[Run] = set()

    @property
    def names(self) -> list[str]:
        """Names of the operator's pipelines."""
        return list(self._named)

    async def run(self, document: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Check and run a pipeline that came with a request.

        Args:
            document: the pipeline as plain data.
            inputs: values by input; an image in the form of a request's image.

        Returns:
            Outputs by name, as their kinds dump them.

        Raises:
            PipelineError: with every problem of the pipeline.
            RequestError: if it may not run here, an input is wrong, or a step fails.
        """
        _check_size(document, self._service.settings.max_pipeline_parts)
        pipeline = await self._service.in_thread(lambda: self._load(document))
        for step in pipeline.steps:
            if step.manifest.file_access != "none":
                raise RequestError(
                    f"pipeline: step {step.id!r}: {step.manifest.id} touches files of this "
                    "machine, which only pipelines of its operator may do."
                )
        return await self._run(pipeline, inputs)

    async def run_named(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run a pipeline of the operator.

        Args:
            name: of the pipeline.
            inputs: as in `run`.

        Returns:
            As `run`.

        Raises:
            UnknownNameError: if there is none of this name.
            RequestError: if an input is wrong, or a step fails.
        """
        return await self._run(self.named(name), inputs)

    def named(self, name: str) -> Pipeline:
        """Return a pipeline of the operator.

        Raises:
            UnknownNameError: if there is none of this name.
        """
        if name not in self._named:
            raise UnknownNameError(f"no pipeline {name!r} here.{did_you_mean(name, self._named)}")
        return self._named[name]

    def stalled(self) -> dict[str, float]:
        """See `Service.stalled`."""
        seconds = self.workers.stalled_s()
        is_stalled = seconds > self._service.settings.deadline_s
        return {self.workers.name: seconds} if is_stalled else {}

    def close(self) -> None:
        """Give up what still runs, and wait until it has noticed."""
        for run in list(self._runs):
            run.give_up()
        self.workers.shutdown(cancel_futures=True)

    def _load(self, source: Path | Mapping[str, Any]) -> Pipeline:
        plugins = self._plugins
        pipeline = load_pipeline(source, plugins.manifests, plugins.kinds, packages=True)
        default = self._service.models.default.spec
        steps = tuple(_with_model(step, default) for step in pipeline.steps)
        return replace(pipeline, steps=steps)

    async def _run(self, pipeline: Pipeline, inputs: Mapping[str, Any]) -> dict[str, Any]:
        for name, selector in pipeline.outputs.items():
            if UNSENDABLE in map(element_kind, pipeline.kinds_of(selector)):
                raise RequestError(f"pipeline: output {name!r} has no form in JSON; leave it out.")
        _refuse_lists_of_images(pipeline, inputs)
        # Read images here: a plain string would be a path on this machine to the runner.
        images = {
            f"inputs.{name}": _to_request(f"inputs.{name}", value)
            for name, value in inputs.items()
            if _is_image(pipeline, name, value)
        }
        async with self._service.images.opened(images) as opened:
            read = {field.removeprefix("inputs."): image for field, image in opened.items()}
            return await self._run_to_the_end(pipeline, {**inputs, **read})

    async def _run_to_the_end(
        self, pipeline: Pipeline, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        run = Run(self._service.settings)
        self._runs.add(run)
        try:
            return await to_the_end(
                self.workers,
                lambda: self._run_item(pipeline, values, run),
                give_up=run.give_up,
            )
        finally:
            self._runs.discard(run)

    def _run_item(self, pipeline: Pipeline, values: Mapping[str, Any], run: Run) -> dict[str, Any]:
        plugins, models = run.watch(self._plugins), RunModels(self._service.models, run)
        with (
            stopping(run.check),
            Runner(pipeline, plugins, resources=models, readers=1) as runner,
        ):
            try:
                [result] = runner.run([Item("request", values)])
            except StepError as error:
                raise _cause_of(error) from error
        if result.errors:
            raise RequestError(_describe(result))
        return run.answer(result.outputs, pipeline)


def _pipelines_in(folder: Path | None) -> dict[str, Path]:
    """Find the files of an operator's pipelines, by the name of the pipeline.

    Raises:
        PipelineError: if two have the same.
    """
    found: dict[str, Path] = {}
    for file in iter_yaml_files(folder) if folder else ():
        if file.stem in found:
            message = f"{found[file.stem].name} has the same name; rename one of them."
            raise PipelineError(str(file), [Problem(message)])
        found[file.stem] = file
    return found


def _check_size(document: Mapping[str, Any], most: int) -> None:
    """Refuse a pipeline before anything is made of it: checking costs time for every part."""
    steps = document.get("steps")
    counted = [(name, document.get(name)) for name in ("steps", "inputs", "outputs")]
    if isinstance(steps, Mapping):
        counted += [
            (f"values of step {name!r}"[:100], step.get("with"))
            for name, step in steps.items()
            if isinstance(step, Mapping)
        ]
    for what, parts in counted:
        if isinstance(parts, Mapping) and len(parts) > most:
            raise RequestError(f"pipeline: there are {len(parts)} {what}, the limit is {most}.")


def _with_model(step: Step, served: ExecutorSpec) -> Step:
    """Let a step that names no model, of a family whose names it may be, have this one."""
    unsaid = {
        name: served.full_name
        for name, param in step.manifest.params.items()
        if param.format == "model"
        and param.model_family in (DEFAULT_FAMILY, served.family)
        and name not in step.values
    }
    return replace(step, values={**step.values, **unsaid}) if unsaid else step


def _to_request(field: str, value: Any) -> InferenceRequestImage:
    try:
        return InferenceRequestImage.model_validate(value)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise RequestError(
            f'{field}: wants an image such as {{"type": "base64", "value": "…"}}: {reason}.'
        ) from error


def _refuse_lists_of_images(pipeline: Pipeline, inputs: Mapping[str, Any]) -> None:
    """A text in such a list would be a path on this machine to the runner."""
    for name in inputs:
        declared = pipeline.inputs.get(name)
        for kind in declared.kinds if declared else ():
            if kind.startswith(LIST_OF) and element_kind(kind) == "image":
                raise RequestError(
                    f"inputs.{name}: a {kind} cannot be sent. Give each image an input of its own."
                )


def _is_image(pipeline: Pipeline, name: str, value: Any) -> bool:
    declared = pipeline.inputs.get(name)
    if declared is None or "image" not in declared.kinds:
        return False
    return value is not None or declared.required


def _cause_of(error: StepError) -> Sam2BlocksError:
    """A refused model is the client's mistake, and gets its own status; the rest is ours."""
    cause = error.__cause__
    return type(cause)(str(error)) if isinstance(cause, RequestError) else error


def _describe(result: ItemResult) -> str:
    return " ".join(
        f"step {error.step!r}: {error.message}" if error.block else error.message
        for error in result.errors
    )

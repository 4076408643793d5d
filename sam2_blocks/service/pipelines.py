"""Pipelines over the wire: checked, run on one item, their outputs as plain data.

Anybody may send a pipeline, so it gets the served models, and no block that touches the files of
this machine; pipelines that the operator put into the service's folder may use every block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sam2_blocks.errors import Sam2BlocksError, StepError, did_you_mean
from sam2_blocks.pipeline import Pipeline, load_pipeline
from sam2_blocks.plugins import Plugins
from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.runner import Item, ItemResult, Runner
from sam2_blocks.service.answers import to_plain
from sam2_blocks.service.core import Service
from sam2_blocks.service.errors import RequestError, UnknownNameError
from sam2_blocks.values import Image

UNSENDABLE = frozenset({"image_embedding", "prompts"})
THREADS = 4


class PipelineRunner:
    """Runs pipelines with the models of a service.

    Args:
        service: whose models and limits they get.
        plugins: where blocks and kinds come from.
        folder: YAML pipelines of the operator, run by name; none if not given.

    Raises:
        PipelineError: if one of them is wrong.
    """

    def __init__(self, service: Service, plugins: Plugins, folder: Path | None = None) -> None:
        self._service = service
        self._plugins = plugins
        files = sorted(folder.glob("*.yaml")) if folder else []
        self._named = {
            file.stem: load_pipeline(file, plugins.manifests, plugins.kinds) for file in files
        }
        self._threads = ThreadPoolExecutor(THREADS, "sam2-blocks-pipeline")

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
            Outputs by name, as `to_plain` makes them.

        Raises:
            PipelineError: with every problem of the pipeline.
            RequestError: if it may not run here, an input is wrong, or a step fails.
        """
        pipeline = await self._service.in_thread(
            lambda: load_pipeline(document, self._plugins.manifests, self._plugins.kinds)
        )
        for step in pipeline.steps:
            if step.manifest.file_access != "none":
                raise RequestError(
                    f"pipeline: step {step.id!r}: {step.manifest.id} touches files of this "
                    "machine, which only pipelines of its operator may do."
                )
        return await self._run(pipeline, inputs)

    async def run_named(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run a pipeline of the operator; see `run`.

        Raises:
            UnknownNameError: if there is none of this name.
        """
        if name not in self._named:
            raise UnknownNameError(f"no pipeline {name!r} here.{did_you_mean(name, self._named)}")
        return await self._run(self._named[name], inputs)

    def close(self) -> None:
        """Let go of the threads, once nothing runs any more."""
        self._threads.shutdown(cancel_futures=True)

    async def _run(self, pipeline: Pipeline, inputs: Mapping[str, Any]) -> dict[str, Any]:
        for name, selector in pipeline.outputs.items():
            if UNSENDABLE.intersection(pipeline.kinds_of(selector)):
                raise RequestError(f"pipeline: output {name!r} has no form in JSON; leave it out.")
        # Read images here: a plain string would be a path on this machine to the runner.
        images = [name for name in inputs if _is_image(pipeline, name)]
        async with self._service.places_for_images(len(images)):
            read = {name: await self._read_image(name, inputs[name]) for name in images}
            values = {**inputs, **read}
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._run_item, pipeline, values)

    async def _read_image(self, name: str, value: Any) -> Image:
        field = f"inputs.{name}"
        try:
            given = InferenceRequestImage.model_validate(value)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise RequestError(
                f'{field}: wants an image such as {{"type": "base64", "value": "…"}}: {reason}.'
            ) from error
        return await self._service.read_image(given, field)

    def _run_item(self, pipeline: Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
        with Runner(pipeline, self._plugins, resources=self._service.models, readers=1) as runner:
            try:
                [result] = runner.run([Item("request", values)])
            except StepError as error:
                raise _cause_of(error) from error
        if result.errors:
            raise RequestError(_describe(result))
        return {name: to_plain(value) for name, value in result.outputs.items()}


def _is_image(pipeline: Pipeline, name: str) -> bool:
    declared = pipeline.inputs.get(name)
    return declared is not None and "image" in declared.kinds


def _cause_of(error: StepError) -> Sam2BlocksError:
    """A refused model is the client's mistake, and gets its own status; the rest is ours."""
    cause = error.__cause__
    return type(cause)(str(error)) if isinstance(cause, RequestError) else error


def _describe(result: ItemResult) -> str:
    return " ".join(
        f"step {error.step!r}: {error.message}" if error.block else error.message
        for error in result.errors
    )

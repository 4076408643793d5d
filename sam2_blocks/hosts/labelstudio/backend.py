"""One request of Label Studio: a labeller's clicks, or whole tasks for a pipeline."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field

from sam2_blocks import __version__
from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.hosts.bridge import ends_of
from sam2_blocks.hosts.labelstudio.clicks import Clicks, read_clicks
from sam2_blocks.hosts.labelstudio.config import (
    LabellingConfig,
    Target,
    picture_of,
    read_config,
)
from sam2_blocks.hosts.labelstudio.pictures import FIELD, TaskPictures
from sam2_blocks.hosts.labelstudio.regions import mask_to_found, row_to_found, to_prediction
from sam2_blocks.masks.rle import coco_to_rle, rle_area
from sam2_blocks.requests import InferenceRequestImage, Sam2PromptSet, Sam2SegmentationRequest
from sam2_blocks.service import Service
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.errors import RequestError, UnknownImageError
from sam2_blocks.service.pipelines import PipelineRunner

LOGGER = logging.getLogger(__name__)

SEEN_S = 60.0
"""How long a picture is not fetched again, so that clicks on it are quick."""
MAX_SEEN = 1000
MAX_TOGETHER = 16
"""Of more tasks only the first is answered: Label Studio then asks for one after the other."""


class Task(BaseModel):
    """A task: one picture, or more."""

    id: Any = None
    data: dict[str, Any] = Field(default_factory=dict)


class Params(BaseModel):
    """What Label Studio sends beside the tasks; its credentials are not read."""

    context: dict[str, Any] | None = None


class PredictRequest(BaseModel):
    """Label these tasks; with a context, what a labeller just drew."""

    tasks: list[Task]
    label_config: str
    params: Params = Field(default_factory=Params)


class SetupRequest(BaseModel):
    """A project is connected; also ``hostname`` and ``access_token``, which are not read."""

    label_schema: str | None = Field(default=None, alias="schema")


class WebhookRequest(BaseModel):
    """Something happened in a project."""

    action: str = ""


class LabelStudioBackend:
    """Answers Label Studio with a service.

    Args:
        service: what segments.
        runner: what runs the pipeline of the settings.

    Attributes:
        version: names model, pipeline and release; Label Studio keeps it with each prediction.

    Raises:
        Sam2BlocksError: if the settings name a pipeline that is not there, or is not about one
            picture, or an address that is none.
    """

    def __init__(self, service: Service, runner: PipelineRunner) -> None:
        self._service = service
        self._runner = runner
        self._pipeline = service.settings.label_studio_pipeline
        self._ends = ends_of(runner.named(self._pipeline)) if self._pipeline else ("", "")
        self._pictures = TaskPictures(service)
        self._seen: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        made_by = [service.models.default.spec.model, *filter(None, [self._pipeline])]
        self.version = f"sam2-blocks {__version__} {' '.join(made_by)}"

    async def predict(self, request: PredictRequest, caller: Caller) -> dict[str, Any]:
        """Answer ``/predict``.

        Returns:
            ``results``: a prediction, or a list of none, for each task; only the first of more
            than `MAX_TOGETHER`; none at all where there is neither a context nor a pipeline.

        Raises:
            RequestError: if the request is wrong, or a single task cannot be labelled.
        """
        config = read_config(request.label_config)
        drawn = (request.params.context or {}).get("result")
        if drawn:
            if not _is_drawn(drawn) or not request.tasks:
                raise RequestError("context.result must be a list of regions, of some task.")
            made = await self._segment(request.tasks[0], config, read_clicks(drawn), caller)
            return {"results": [made]}
        if not self._pipeline:
            return {"results": []}
        tasks = request.tasks if len(request.tasks) <= MAX_TOGETHER else request.tasks[:1]
        if len(tasks) == 1:
            return {"results": [await self._label(tasks[0], config)]}
        return {"results": [await self._label_or_not(task, config) for task in tasks]}

    # --- clicks -------------------------------------------------------------------------------

    async def _segment(
        self, task: Task, config: LabellingConfig, clicks: Clicks, caller: Caller
    ) -> dict[str, Any]:
        target = config.target(clicks.picture)
        labels = [target.check_labels(names) for names, _ in clicks.objects]
        address = picture_of(task.data, config.pictures[clicks.picture])
        prompts = [prompt for _, prompt in clicks.objects]
        rows = await self._masks(address, task, prompts, caller)
        rles = [coco_to_rle(row.masks) for row in rows]
        for rle in rles:
            _check_size(rle.size, clicks)
        found = [
            mask_to_found(names, rle, row.confidence)
            for names, rle, row in zip(labels, rles, rows, strict=True)
            if rle_area(rle)
        ]
        return await self._service.at_length(lambda: to_prediction(found, target, self.version))

    async def _masks(
        self, address: str, task: Task, prompts: Sequence[Any], caller: Caller
    ) -> Sequence[Any]:
        """Segment a picture, which is fetched only if it was not a moment ago."""
        key = (caller.client, address)
        name, until = self._seen.get(key, ("", 0.0))
        if time.monotonic() < until:
            try:
                return await self._ask(None, name, prompts, caller)
            except UnknownImageError:
                pass  # its embedding had to go
        name = uuid4().hex
        async with self._pictures.opened(address, task.id) as picture:
            rows = await self._ask(picture, name, prompts, caller)
        self._seen[key] = name, time.monotonic() + SEEN_S
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return rows

    async def _ask(
        self,
        picture: InferenceRequestImage | None,
        name: str,
        prompts: Sequence[Any],
        caller: Caller,
    ) -> Sequence[Any]:
        request = Sam2SegmentationRequest(
            image=picture,
            image_id=name,
            prompts=Sam2PromptSet(prompts=list(prompts)),
            format="rle",
            sam2_version_id=None,  # ours
        )
        answer = await self._service.segment(request, caller)
        assert not isinstance(answer, bytes)
        return answer.predictions

    # --- whole tasks --------------------------------------------------------------------------

    async def _label_or_not(self, task: Task, config: LabellingConfig) -> Any:
        """Label one of several tasks: what is wrong with it is no matter of the others."""
        try:
            return await self._label(task, config)
        except Sam2BlocksError as error:
            LOGGER.warning("task %s is not labelled: %s", task.id, error)
            return []

    async def _label(self, task: Task, config: LabellingConfig) -> dict[str, Any]:
        assert self._pipeline
        target = config.target()
        address = picture_of(task.data, config.pictures[target.picture])
        image_input, output = self._ends
        async with self._pictures.opened(address, task.id) as picture:
            given = {"type": picture.type, "value": picture.value}
            outputs = await self._runner.run_named(self._pipeline, {image_input: given})
            async with self._service.images.opened({FIELD: picture}) as opened:
                image_hw = opened[FIELD].hw
        rows = outputs.get(output) or []
        return await self._service.at_length(
            lambda: self._to_prediction(rows, target, image_hw),
        )

    def _to_prediction(
        self, rows: Sequence[Mapping[str, Any]], target: Target, image_hw: tuple[int, int]
    ) -> dict[str, Any]:
        found = [row_to_found(row, target, image_hw) for row in rows]
        return to_prediction([one for one in found if one], target, self.version)


def _is_drawn(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, Mapping) for one in given)


def _check_size(image_hw: tuple[int, int], clicks: Clicks) -> None:
    """Percentages were of the picture that the labeller sees; it has to be the same."""
    if image_hw != clicks.image_hw:
        height, width = clicks.image_hw
        raise RequestError(
            f"{FIELD} has {image_hw[1]} x {image_hw[0]} pixels here and {width} x {height} in "
            "Label Studio. Does its address always lead to the same picture?"
        )

"""Where Label Studio finds its ML backend: ``/setup``, ``/predict``, ``/health``, ``/webhook``."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response

from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.hosts.http import docs
from sam2_blocks.hosts.http.answering import Answerer
from sam2_blocks.hosts.labelstudio.backend import (
    LabelStudioBackend,
    PredictRequest,
    SetupRequest,
    WebhookRequest,
)
from sam2_blocks.service import Service
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.pipelines import PipelineRunner

LOGGER = logging.getLogger(__name__)

MAX_VALUES = 4_000_000
"""Most values in a request: with each click come all brushes of the task, a number a byte."""

Body = dict[str, Any]


def add_label_studio_routes(app: FastAPI, service: Service, runner: PipelineRunner) -> None:
    """Add the addresses that Label Studio asks.

    Args:
        app: what it is connected to.
        service: what segments.
        runner: what runs the pipeline that labels whole tasks.

    Raises:
        Sam2BlocksError: see `LabelStudioBackend`.
    """
    backend = LabelStudioBackend(service, runner)
    answerer = Answerer(service, max_values=MAX_VALUES)

    async def set_up(given: SetupRequest, caller: Caller) -> Body:
        return {"model_version": backend.version}

    async def webhook(given: WebhookRequest, caller: Caller) -> Body:
        return {"status": "ok", "result": f"nothing is learnt from {given.action or 'events'}"}

    @app.get("/health", summary="For Label Studio: alive", responses=docs.error_answers(401, 503))
    async def health(request: Request) -> Body:
        answerer.keys.check(request)  # it tells people when its password is wrong
        service.check_open()
        return {"status": "UP", "model_class": "sam2_blocks"}

    @app.get("/versions", summary="For Label Studio: what answers", responses=docs.error_answers())
    async def versions(request: Request) -> Body:
        answerer.keys.check(request)
        return {"versions": [backend.version]}

    for path, summary, model, answer in (
        ("/setup", "For Label Studio: connect a project", SetupRequest, set_up),
        (
            "/predict",
            "For Label Studio: clicks or tasks to regions",
            PredictRequest,
            backend.predict,
        ),
        ("/webhook", "For Label Studio: nothing is learnt", WebhookRequest, webhook),
    ):
        _add(app, path, summary, answerer, model, answer)


def _add(
    app: FastAPI, path: str, summary: str, answerer: Answerer, model: Any, answer: Any
) -> None:
    @app.post(path, summary=summary, responses=docs.error_answers(), name=path[1:])
    async def route(request: Request) -> Response:
        try:
            return await answerer(request, model, answer)
        except Sam2BlocksError as error:  # Label Studio shows people the status, and no more
            LOGGER.warning("%s: %s", path, error)
            raise

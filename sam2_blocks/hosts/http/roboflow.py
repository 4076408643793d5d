"""What clients of Roboflow's server look for beside ``/sam2``, in its form."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from sam2_blocks import __version__
from sam2_blocks.hosts.http import docs
from sam2_blocks.hosts.http.answering import PROCESSING_TIME, Answerer
from sam2_blocks.requests import Sam2EmbeddingRequest, Sam2SegmentationRequest
from sam2_blocks.responses import Sam2EmbeddingResponse, Sam2SegmentationResponse
from sam2_blocks.service import Service
from sam2_blocks.service.admission import Caller

SERVER_NAME = "sam2_blocks"
TASK = "instance-segmentation"
OUR_MODEL = {"model_id": None, "sam2_version_id": None}
"""Of a request for SAM 3: the model that answers where none is named."""


def allow_origins(app: FastAPI, origins: str | None) -> None:
    """Let pages of some origins call the service from a browser; of none without a word.

    Args:
        app: what they call.
        origins: separated by commas; ``*`` is any.
    """
    allowed = [origin for origin in map(str.strip, (origins or "").split(",")) if origin]
    if allowed:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allowed,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[PROCESSING_TIME, "Retry-After"],
        )


def add_roboflow_routes(app: FastAPI, service: Service, answerer: Answerer) -> None:
    """Add its addresses for the state of a server, and for SAM 3's visual prompts."""
    identity = {"name": SERVER_NAME, "version": __version__, "uuid": str(uuid4())}

    @app.get("/", summary="Name and version of this server")
    @app.get("/info", summary="Name and version of this server")
    async def info() -> dict[str, str]:
        return identity

    @app.get("/readiness", summary="Requests are taken; as /readyz", responses={503: {}})
    async def readiness(response: Response) -> dict[str, str]:
        if service.draining or service.stalled():
            response.status_code = 503
            return {"status": "not ready"}
        return {"status": "ready"}

    @app.get("/model/registry", summary="Models", responses=docs.error_answers(401))
    async def registry(request: Request) -> dict[str, Any]:
        answerer.keys.check(request)
        return {"models": [_described(name) for name in service.models.names]}

    _add_sam3(app, service, answerer)


def _add_sam3(app: FastAPI, service: Service, answerer: Answerer) -> None:
    """Take the same requests as ``/sam2``; those name a model of SAM 3, and ours answers."""

    @app.post(
        "/sam3/embed_image",
        summary="Embed an image; as /sam2/embed_image",
        responses={**docs.error_answers(), 200: {"model": Sam2EmbeddingResponse}},
        openapi_extra=docs.body_of(Sam2EmbeddingRequest, "embed"),
    )
    async def embed_image(request: Request) -> Response:
        async def embed(given: Sam2EmbeddingRequest, caller: Caller) -> Any:
            return await service.embed(given.model_copy(update=OUR_MODEL), caller)

        return await answerer(request, Sam2EmbeddingRequest, embed)

    @app.post(
        "/sam3/visual_segment",
        summary="Segment an image; as /sam2/segment_image",
        responses={**docs.error_answers(), 200: {"model": Sam2SegmentationResponse}},
        openapi_extra=docs.body_of(Sam2SegmentationRequest, "segment"),
    )
    async def visual_segment(request: Request) -> Response:
        async def segment(given: Sam2SegmentationRequest, caller: Caller) -> Any:
            return await service.segment(given.model_copy(update=OUR_MODEL), caller)

        return await answerer(request, Sam2SegmentationRequest, segment)


def _described(name: str) -> dict[str, Any]:
    unknown = dict.fromkeys(("batch_size", "input_height", "input_width"))
    model_id = name if "/" in name or ":" in name else f"sam2/{name}"
    return {"model_id": model_id, "task_type": TASK, **unknown}

"""Routes: which request is answered by what; see `answering` for how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field, model_validator

from sam2_blocks import __version__
from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.errors import did_you_mean
from sam2_blocks.hosts.http import docs
from sam2_blocks.hosts.http.answering import Answerer
from sam2_blocks.hosts.http.errors import add_error_handlers
from sam2_blocks.hosts.http.keys import ApiKeys
from sam2_blocks.hosts.http.metrics import MeasuringMiddleware, Metrics
from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.hosts.http.page.routes import add_page
from sam2_blocks.hosts.http.roboflow import add_roboflow_routes, allow_origins
from sam2_blocks.hosts.http.tracks import add_track_routes, sweeping
from sam2_blocks.hosts.labelstudio.routes import add_label_studio_routes
from sam2_blocks.language.schema import step_schema
from sam2_blocks.requests import Sam2EmbeddingRequest, Sam2SegmentationRequest
from sam2_blocks.responses import Sam2EmbeddingResponse, Sam2SegmentationResponse
from sam2_blocks.service import ServedModels, Service, ServiceSettings
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.errors import ShuttingDownError, StalledError, UnknownNameError
from sam2_blocks.service.pipelines import PipelineRunner
from sam2_blocks.service.tracks import TrackSessions
from sam2_blocks.track_requests import TrackFramesRequest, TrackRequest


class PipelineInputs(BaseModel):
    """Inputs of a pipeline that the operator put into the service's folder.

    A file that a form uploads as ``image`` is the input of this name.
    """

    inputs: dict[str, Any] = Field(default_factory=dict, description="Values by input.")

    @model_validator(mode="before")
    @classmethod
    def _take_upload(cls, given: Any) -> Any:
        image, inputs = given.get("image"), given.get("inputs", {})
        is_upload = isinstance(image, Mapping) and image.get("type") == "multipart"
        if is_upload and isinstance(inputs, Mapping):
            return {**given, "inputs": {"image": image, **inputs}}
        return given


class PipelineRequest(PipelineInputs):
    """A pipeline and its inputs; a step that names no model gets the service's default."""

    pipeline: dict[str, Any] = Field(description="The pipeline as JSON.")


BODIES: list[type[BaseModel]] = [
    Sam2EmbeddingRequest,
    Sam2SegmentationRequest,
    TrackRequest,
    TrackFramesRequest,
    PipelineRequest,
    PipelineInputs,
]
"""What requests are read as."""


def create_app(
    models: ServedModels,
    settings: ServiceSettings | None = None,
    *,
    plugins: Plugins | None = None,
    pipelines: Path | None = None,
    page: PageFolder | None = None,
) -> FastAPI:
    """Make the app of one service.

    Args:
        models: what it answers with, loaded.
        settings: limits and switches; from the environment if not given.
        plugins: blocks for pipelines; the installed ones if not given.
        pipelines: folder of YAML pipelines that may be run by name.
        page: what the page for clicking masks reads and writes; None serves no page.

    Raises:
        UsageError: if the pictures for the page are not there.
    """
    metrics = Metrics()
    settings = settings or ServiceSettings.from_environment()
    plugins = plugins or load_plugins()
    service = Service(models, settings, observe=metrics.observe_batch)
    runner, tracks = PipelineRunner(service, plugins, pipelines), TrackSessions(service)
    metrics.watch(service, tracks)
    closing = _closing(service, runner, tracks)
    # Its /docs and /redoc need no network.
    app = FastAPIOffline(title="sam2_blocks", version=__version__, lifespan=closing)
    app.state.service = service
    app.state.tracks = tracks
    app.add_middleware(MeasuringMiddleware, metrics=metrics)
    allow_origins(app, settings.cors_origins)
    add_error_handlers(app)
    answerer = Answerer(service)
    _add_sam2(app, service, answerer)
    add_track_routes(app, tracks, answerer)
    _add_pipelines(app, runner, answerer)
    _add_blocks(app, plugins, answerer.keys)
    _add_health(app, service, runner)
    add_roboflow_routes(app, service, answerer)
    if settings.label_studio:
        add_label_studio_routes(app, service, runner)
    _add_metrics(app, metrics, answerer.keys)
    if page is not None:
        add_page(app, service, answerer, page)
    docs.describe_bodies(app, BODIES)
    return app


def _closing(service: Service, runner: PipelineRunner, tracks: TrackSessions) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.images.start()
        async with sweeping(tracks):
            yield
            service.images.close()  # first, since runs may wait for an image
            runner.close()
        service.close()

    return lifespan


# --- routes -----------------------------------------------------------------------------------


def _add_sam2(app: FastAPI, service: Service, answerer: Answerer) -> None:
    @app.post(
        "/sam2/embed_image",
        summary="Embed an image",
        responses={
            **docs.error_answers(),
            200: {
                "model": Sam2EmbeddingResponse,
                **docs.binary_answer("Where it is kept.", docs.EMBEDDING_ARRAYS),
            },
        },
        openapi_extra=docs.body_of(Sam2EmbeddingRequest, "embed"),
    )
    async def embed_image(request: Request) -> Response:
        return await answerer(request, Sam2EmbeddingRequest, service.embed)

    @app.post(
        "/sam2/segment_image",
        summary="Segment an image: one mask for each prompt",
        responses={
            **docs.error_answers(),
            200: {
                "model": Sam2SegmentationResponse,
                **docs.binary_answer("The masks.", docs.LOGIT_ARRAYS),
            },
        },
        openapi_extra=docs.body_of(Sam2SegmentationRequest, "segment"),
    )
    async def segment_image(request: Request) -> Response:
        return await answerer(request, Sam2SegmentationRequest, service.segment)


def _add_pipelines(app: FastAPI, runner: PipelineRunner, answerer: Answerer) -> None:
    @app.post(
        "/pipelines/run",
        summary="Run a pipeline on one item",
        responses=docs.error_answers(),
        openapi_extra=docs.body_of(PipelineRequest, "pipeline"),
    )
    async def run_pipeline(request: Request) -> Response:
        async def run(given: PipelineRequest, caller: Caller) -> Mapping[str, Any]:
            return {"outputs": await runner.run(given.pipeline, given.inputs)}

        return await answerer(request, PipelineRequest, run)

    @app.post(
        "/pipelines/{name}/run",
        summary="Run a pipeline of this service on one item",
        responses=docs.error_answers(),
        openapi_extra=docs.body_of(PipelineInputs, "inputs"),
    )
    async def run_named_pipeline(name: str, request: Request) -> Response:
        async def run(given: PipelineInputs, caller: Caller) -> Mapping[str, Any]:
            return {"outputs": await runner.run_named(name, given.inputs)}

        return await answerer(request, PipelineInputs, run)

    @app.get("/pipelines", summary="List the pipelines of this service")
    async def list_pipelines(request: Request) -> list[str]:
        answerer.keys.check(request)
        return runner.names


def _add_blocks(app: FastAPI, plugins: Plugins, keys: ApiKeys) -> None:
    @app.get("/blocks", summary="List the blocks", responses=docs.error_answers(401))
    async def list_blocks(request: Request) -> list[dict[str, str]]:
        keys.check(request)
        manifests = [plugins.manifests[name] for name in sorted(plugins.manifests)]
        return [{"id": m.id, "title": m.title, "summary": m.summary} for m in manifests]

    @app.get(
        "/blocks/{block_id:path}",
        summary="Show one block: its manifest and the JSON Schema of a step",
        responses=docs.error_answers(401, 404),
    )
    async def show_block(block_id: str, request: Request) -> dict[str, Any]:
        keys.check(request)
        manifest = plugins.manifests.get(block_id)
        if manifest is None:
            hint = did_you_mean(block_id, plugins.manifests)
            raise UnknownNameError(f"no block {block_id!r}.{hint}")
        return {
            "manifest": manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "schema": step_schema(manifest),
        }


def _add_health(app: FastAPI, service: Service, runner: PipelineRunner) -> None:
    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Requests are taken", responses=docs.error_answers(503))
    async def readyz() -> dict[str, Any]:
        if service.draining:
            raise ShuttingDownError("the service is shutting down.")
        stalled = service.stalled() | runner.stalled()
        if stalled:
            shown = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in stalled.items())
            raise StalledError(f"threads have taken up nothing new: {shown}.")
        return {"status": "ready", "models": service.models.names}


def _add_metrics(app: FastAPI, metrics: Metrics, keys: ApiKeys) -> None:
    @app.get("/metrics", summary="Metrics for Prometheus", responses=docs.error_answers(401))
    async def read_metrics(request: Request) -> Response:
        keys.check(request)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

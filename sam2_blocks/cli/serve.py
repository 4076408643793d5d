"""``sam2-blocks serve``: options → `ServiceSettings`, models, app, server."""

from __future__ import annotations

import os
import warnings
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.service.settings import ServiceSettings

NETWORK, MODELS, LIMITS, IMAGES = "Network", "Models", "Limits", "Images"
MIB = 2**20


class CompileLevel(str, Enum):
    """What goes through `torch.compile`."""

    OFF = "off"
    ENCODER = "encoder"
    ALL = "all"


class OnConflict(str, Enum):
    """What happens when an image_id comes back with other pixels."""

    REFUSE = "refuse"
    REPLACE = "replace"


COMPILE = CompileLevel(ServiceSettings.compile)
ON_CONFLICT = OnConflict(ServiceSettings.on_conflict)


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on.", rich_help_panel=NETWORK)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=NETWORK)
    ] = 9001,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="SAM2_BLOCKS_API_KEY",
            help="Key that requests must carry, but for /healthz, /readyz and the OpenAPI pages "
            "(/docs, /redoc, /openapi.json).",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model to serve; repeat for more, the first is the default. ASKED=MODEL answers "
            "requests for ASKED with MODEL. By default $SAM2_VERSION_ID, or nano.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=MODELS)
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=MODELS)
    ] = "auto",
    compile_level: Annotated[
        CompileLevel,
        typer.Option(
            "--compile",
            help="Compile parts of models of half precision; slow to start the first time.",
            rich_help_panel=MODELS,
        ),
    ] = COMPILE,
    cache_mb: Annotated[
        int,
        typer.Option(
            min=0, help="Embeddings kept on the device, in MiB a model.", rich_help_panel=MODELS
        ),
    ] = ServiceSettings.embedding_bytes // MIB,
    host_cache_mb: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Embeddings kept in host memory, in MiB a model. By default 2048 beside CUDA.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder that keeps embeddings from one start to the next. By default "
            "$SAM2_BLOCKS_EMBEDDING_CACHE_DIR, or none.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    disk_cache_mb: Annotated[
        int, typer.Option(min=0, help="Bound of that folder, in MiB.", rich_help_panel=MODELS)
    ] = ServiceSettings.embedding_disk_bytes // MIB,
    pipelines: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of YAML pipelines that may be run by name.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    window_ms: Annotated[
        float, typer.Option(min=0, help="Wait for others to share a batch.", rich_help_panel=LIMITS)
    ] = ServiceSettings.window_ms,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Requests in one batch.", rich_help_panel=LIMITS)
    ] = ServiceSettings.max_batch,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Requests waiting or answered.", rich_help_panel=LIMITS)
    ] = ServiceSettings.max_queue,
    deadline_s: Annotated[
        float, typer.Option("--deadline", min=0.1, help="Seconds.", rich_help_panel=LIMITS)
    ] = ServiceSettings.deadline_s,
    max_body_mb: Annotated[
        int,
        typer.Option(
            min=1,
            help="Largest request, and most it may have fetched from URLs, in MiB.",
            rich_help_panel=LIMITS,
        ),
    ] = ServiceSettings.max_body_bytes // MIB,
    max_answer_mb: Annotated[
        int,
        typer.Option(
            min=1, help="Largest answer of logits or a pipeline, in MiB.", rich_help_panel=LIMITS
        ),
    ] = ServiceSettings.max_answer_bytes // MIB,
    max_prompts: Annotated[
        int,
        typer.Option(
            min=1, help="Prompts of one request, or step of a pipeline.", rich_help_panel=LIMITS
        ),
    ] = ServiceSettings.max_prompts,
    max_points: Annotated[
        int, typer.Option(min=1, help="Points of one prompt.", rich_help_panel=LIMITS)
    ] = ServiceSettings.max_points,
    max_pipeline_parts: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps, inputs or outputs of a pipeline that comes with a request.",
            rich_help_panel=LIMITS,
        ),
    ] = ServiceSettings.max_pipeline_parts,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Largest image.", rich_help_panel=IMAGES)
    ] = ServiceSettings.max_pixels,
    max_open_images: Annotated[
        int, typer.Option(min=1, help="Images decoded at once.", rich_help_panel=IMAGES)
    ] = ServiceSettings.max_open_images,
    on_conflict: Annotated[
        OnConflict,
        typer.Option(help="An image_id comes back with other pixels.", rich_help_panel=IMAGES),
    ] = ON_CONFLICT,
    urls: Annotated[
        bool, typer.Option(help="Fetch images.", rich_help_panel=IMAGES)
    ] = ServiceSettings.allow_urls,
    private_urls: Annotated[
        bool, typer.Option(help="Also from private addresses.", rich_help_panel=IMAGES)
    ] = ServiceSettings.allow_private_urls,
    url_timeout_s: Annotated[
        float,
        typer.Option(
            "--url-timeout", min=0.1, help="Seconds to fetch an image.", rich_help_panel=IMAGES
        ),
    ] = ServiceSettings.url_timeout_s,
    numpy: Annotated[
        bool, typer.Option(help="Read .npy arrays.", rich_help_panel=IMAGES)
    ] = ServiceSettings.allow_numpy,
    file_root: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder whose images may be named by path.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
) -> None:
    """Serve the Sam2 requests of Roboflow Inference, and pipelines, over HTTP.

    SAM2_MAX_EMBEDDING_CACHE_SIZE, SAM2_MAX_LOGITS_CACHE_SIZE and DISABLE_SAM2_LOGITS_CACHE are
    read as the public server reads them.
    """
    from sam2_blocks.engine.plugins import load_plugins
    from sam2_blocks.hosts import http
    from sam2_blocks.service import load_models

    settings = ServiceSettings.from_environment(
        api_key=api_key,
        window_ms=window_ms,
        max_batch=max_batch,
        max_queue=max_queue,
        deadline_s=deadline_s,
        max_body_bytes=max_body_mb * MIB,
        max_answer_bytes=max_answer_mb * MIB,
        max_prompts=max_prompts,
        max_points=max_points,
        max_pipeline_parts=max_pipeline_parts,
        max_pixels=max_pixels,
        max_open_images=max_open_images,
        compile=compile_level.value,
        embedding_bytes=cache_mb * MIB,
        embedding_host_bytes=None if host_cache_mb is None else host_cache_mb * MIB,
        embedding_dir=cache_dir,
        embedding_disk_bytes=disk_cache_mb * MIB,
        on_conflict=on_conflict.value,
        allow_urls=urls,
        allow_private_urls=private_urls,
        url_timeout_s=url_timeout_s,
        allow_numpy=numpy,
        file_root=file_root,
    )
    # Nobody reads them, and Python would remember every different one for as long as we serve.
    warnings.filterwarnings("ignore", "boxes reach outside", UserWarning)
    create_app, run = http.create_app, http.serve  # fails now if the extra is missing
    plugins = load_plugins()
    names = models or [os.environ.get("SAM2_VERSION_ID") or "nano"]
    served = load_models(names, plugins.executors, settings, device=device, dtype=dtype)
    run(create_app(served, settings, plugins=plugins, pipelines=pipelines), host=host, port=port)

"""What an operator decides about a service; each setting is said here and nowhere else.

The options of ``sam2-blocks serve``, their help and the environment variables are made from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt
from pydantic import AllowInfNan, ConfigDict, TypeAdapter

from sam2_blocks.environment import read_count, read_switch
from sam2_blocks.executor.backends import BACKEND_VARIABLE
from sam2_blocks.executor.cache.lru import DEFAULT_DISK_CACHE_BYTES

NETWORK, MODELS, LIMITS, IMAGES, VIDEO = "Network", "Models", "Limits", "Images", "Video"
LABEL_STUDIO = "Label Studio"
MIB = 2**20


@dataclass(frozen=True)
class Setting:
    """What people are told of a setting.

    Attributes:
        help: what it decides.
        group: which heading of the help it is under.
        option: of ``sam2-blocks serve``, without dashes; None if it has none.
        unit: what one of the option's is in the setting, such as bytes of a MiB.
        variable: environment variable that has it.
    """

    help: str
    group: str = LIMITS
    option: str | None = None
    unit: int = 1
    variable: str | None = None


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and switches of a service; the defaults are safe on a public network."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    api_key: Annotated[
        str | None,
        Setting(
            "Key that requests must carry, or several separated by commas, but for /healthz, "
            "/readyz and the OpenAPI pages (/docs, /redoc, /openapi.json). What one key calls by "
            "an image_id, others cannot.",
            NETWORK,
            "api-key",
            variable="SAM2_BLOCKS_API_KEY",
        ),
    ] = None
    cors_origins: Annotated[
        str | None,
        Setting(
            "Origins whose pages may call, separated by commas, such as https://example.com; * is "
            "any. By default none.",
            NETWORK,
            "cors-origins",
            variable="SAM2_BLOCKS_CORS_ORIGINS",
        ),
    ] = None
    window_ms: Annotated[
        float,
        Ge(0),
        AllowInfNan(False),
        Setting("How long a request waits for others to share its batch.", option="window-ms"),
    ] = 3.0
    max_batch: Annotated[
        int,
        Ge(1),
        # Sums are rounded in another order in a batch.
        Setting(
            "Requests in one batch; in one of several, a pixel on the border of a mask may change "
            "sides.",
            option="max-batch",
        ),
    ] = 16
    max_queue: Annotated[
        int, Ge(1), Setting("Requests waiting or answered.", option="max-queue")
    ] = 256
    max_queue_bytes: Annotated[
        int,
        Ge(1),
        Setting(
            "All requests waiting or answered together, in MiB.", option="max-queue-mb", unit=MIB
        ),
    ] = 256 * MIB
    deadline_s: Annotated[
        float,
        Gt(0),
        AllowInfNan(False),
        Setting("Seconds a request may take.", option="deadline"),
    ] = 60.0
    max_body_bytes: Annotated[
        int,
        Ge(1),
        Setting(
            "Largest request, and most it may have fetched from URLs, in MiB.",
            option="max-body-mb",
            unit=MIB,
        ),
    ] = 32 * MIB
    max_answer_bytes: Annotated[
        int,
        Ge(1),
        Setting(
            "Largest answer of logits or a pipeline, in MiB.", option="max-answer-mb", unit=MIB
        ),
    ] = 256 * MIB
    max_prompts: Annotated[
        int, Ge(1), Setting("Prompts of one request, or step of a pipeline.", option="max-prompts")
    ] = 1000
    max_points: Annotated[int, Ge(1), Setting("Points of one prompt.", option="max-points")] = 1000
    max_pipeline_parts: Annotated[
        int,
        Ge(1),
        Setting(
            "Steps, inputs or outputs of a pipeline that comes with a request; also values of one "
            "step.",
            option="max-pipeline-parts",
        ),
    ] = 100
    max_pixels: Annotated[int, Ge(1), Setting("Largest image.", IMAGES, "max-pixels")] = 32_000_000
    max_open_images: Annotated[
        int,
        Ge(1),
        Setting("Images decoded at once, also those in pipelines.", IMAGES, "max-open-images"),
    ] = 32
    max_open_bytes: Annotated[
        int,
        Ge(1),
        Setting("Pixels of these images, in MiB; further ones wait.", IMAGES, "max-open-mb", MIB),
    ] = 192 * MIB
    decode_s: Annotated[
        float,
        Gt(0),
        AllowInfNan(False),
        Setting("Seconds to decode an image.", IMAGES, "decode-timeout"),
    ] = 10.0
    decode_bytes: Annotated[
        int,
        Ge(1),
        Setting("Memory to decode an image, in MiB; on Linux.", IMAGES, "decode-mb", MIB),
    ] = 512 * MIB
    max_tracks: Annotated[
        int,
        Ge(0),
        Setting("Sessions that follow objects through videos; 0 is none.", VIDEO, "max-tracks"),
    ] = 32
    max_tracks_per_key: Annotated[
        int | None,
        Ge(1),
        Setting("Of one API key; by default no other limit.", VIDEO, "max-tracks-per-key"),
    ] = None
    track_idle_s: Annotated[
        float,
        Gt(0),
        AllowInfNan(False),
        Setting("Seconds without a request after which a session ends.", VIDEO, "track-idle"),
    ] = 300.0
    max_track_objects: Annotated[
        int, Ge(1), Setting("Objects of one session.", VIDEO, "max-track-objects")
    ] = 64
    max_track_bytes: Annotated[
        int,
        Ge(1),
        Setting(
            "What all sessions remember of their objects, in MiB; who wants more waits.",
            VIDEO,
            "max-track-mb",
            MIB,
        ),
    ] = 2048 * MIB
    max_track_frames: Annotated[
        int, Ge(1), Setting("Frames of one session.", VIDEO, "max-track-frames")
    ] = 100_000
    max_request_frames: Annotated[
        int, Ge(1), Setting("Frames of one request.", VIDEO, "max-request-frames")
    ] = 64
    compile: Annotated[
        Literal["off", "encoder", "all"],
        Setting(
            "Compile parts of models of half precision; slow to start the first time.",
            MODELS,
            "compile",
        ),
    ] = "off"
    backend: Annotated[
        Literal["torch", "openvino", "auto"],
        Setting(
            "What computes on a CPU: torch, openvino (the extra of that name), or auto, which is "
            "torch in float32 and the faster one in half precision.",
            MODELS,
            "backend",
            variable=BACKEND_VARIABLE,
        ),
    ] = "auto"
    input_px: Annotated[
        int,
        Ge(0),
        Setting(
            "Side of the square that models of SAM 2 see, a multiple of 32; 0 is what each was "
            "trained with. Smaller is faster and coarser.",
            MODELS,
            "input-px",
        ),
    ] = 0
    embedding_entries: Annotated[
        int,
        Ge(0),
        Setting(
            "Embeddings kept on the device, a model.",
            MODELS,
            variable="SAM2_MAX_EMBEDDING_CACHE_SIZE",
        ),
    ] = 100
    embedding_bytes: Annotated[
        int,
        Ge(0),
        Setting("Embeddings kept on the device, in MiB a model.", MODELS, "cache-mb", MIB),
    ] = 2048 * MIB
    embedding_host_bytes: Annotated[
        int | None,
        Ge(0),
        Setting(
            "Embeddings kept in host memory, in MiB a model. By default 2048 beside CUDA.",
            MODELS,
            "host-cache-mb",
            MIB,
        ),
    ] = None
    embedding_dir: Annotated[
        Path | None,
        Setting(
            "Folder that keeps embeddings from one start to the next. By default "
            "$SAM2_BLOCKS_EMBEDDING_CACHE_DIR, or none.",
            MODELS,
            "cache-dir",
        ),
    ] = None
    embedding_disk_bytes: Annotated[
        int, Ge(0), Setting("Bound of that folder, in MiB.", MODELS, "disk-cache-mb", MIB)
    ] = DEFAULT_DISK_CACHE_BYTES
    logits_entries: Annotated[
        int,
        Ge(0),
        Setting(
            "Low-resolution logits kept; 0 keeps none.",
            MODELS,
            variable="SAM2_MAX_LOGITS_CACHE_SIZE",
        ),
    ] = 1000
    on_conflict: Annotated[
        Literal["refuse", "replace"],
        Setting(
            "What becomes of an image_id that comes back with other pixels.", IMAGES, "on-conflict"
        ),
    ] = "refuse"
    allow_urls: Annotated[bool, Setting("Fetch images from URLs.", IMAGES, "urls")] = True
    allow_private_urls: Annotated[
        bool,
        Setting("Also from private, loopback and link-local addresses.", IMAGES, "private-urls"),
    ] = False
    url_timeout_s: Annotated[
        float,
        Gt(0),
        AllowInfNan(False),
        Setting("Seconds to fetch an image, redirects included.", IMAGES, "url-timeout"),
    ] = 10.0
    allow_numpy: Annotated[bool, Setting("Read .npy arrays.", IMAGES, "numpy")] = False
    file_root: Annotated[
        Path | None,
        Setting("Folder whose images may be named by path.", IMAGES, "file-root"),
    ] = None

    label_studio: Annotated[
        bool,
        Setting("Be an ML backend of Label Studio, too.", LABEL_STUDIO, "label-studio"),
    ] = False
    label_studio_url: Annotated[
        str | None,
        Setting(
            "Where Label Studio is, such as http://127.0.0.1:8080; pictures that were uploaded "
            "there are fetched from it.",
            LABEL_STUDIO,
            "label-studio-url",
            variable="LABEL_STUDIO_URL",
        ),
    ] = None
    label_studio_key: Annotated[
        str | None,
        Setting(
            "Access token of Label Studio; sent to no other server.",
            LABEL_STUDIO,
            "label-studio-key",
            variable="LABEL_STUDIO_API_KEY",
        ),
    ] = None
    label_studio_pipeline: Annotated[
        str | None,
        Setting(
            "Pipeline of --pipelines that labels whole tasks; by default none are.",
            LABEL_STUDIO,
            "label-studio-pipeline",
        ),
    ] = None

    @classmethod
    def from_environment(cls, **chosen: Any) -> ServiceSettings:
        """Read the variables of the public server and ours; what is chosen here goes before them.

        Beside those of the settings, ``DISABLE_SAM2_LOGITS_CACHE`` keeps no logits.

        Args:
            chosen: settings by name, also as texts; None leaves one as it is.

        Raises:
            Sam2BlocksError: if a variable is not what it should be.
            ValidationError: if what is chosen is not, or is no setting.
        """
        found: dict[str, Any] = {}
        for name, _, default, setting in told_settings():
            if setting.variable and isinstance(default, int):
                found[name] = read_count(setting.variable, default)
            elif setting.variable:
                found[name] = os.environ.get(setting.variable) or default
        if read_switch("DISABLE_SAM2_LOGITS_CACHE"):
            found["logits_entries"] = 0
        given = {name: value for name, value in chosen.items() if value is not None}
        return TypeAdapter(cls).validate_python({**found, **given})


def told_settings() -> Iterator[tuple[str, Any, Any, Setting]]:
    """Each setting's name, annotated type, default, and what people are told of it."""
    hints = get_type_hints(ServiceSettings, include_extras=True)
    for field in fields(ServiceSettings):
        hint, default = hints[field.name], field.default
        assert default is not MISSING
        [setting] = [part for part in hint.__metadata__ if isinstance(part, Setting)]
        yield field.name, hint, default, setting

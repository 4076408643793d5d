"""What an operator decides about a service."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.executor.cache.lru import DEFAULT_DISK_CACHE_BYTES

Count = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and switches of a service; the defaults are safe on a public network.

    Attributes:
        api_key: if given, requests must carry it, but for health checks and the OpenAPI pages.
        window_ms: how long the first request waits for others to share its batch.
        max_batch: most requests in one batch. Sums are rounded in another order then, so that a
            pixel on the border of a mask may change sides; 1 answers as if each came alone.
        max_queue: most requests being answered or waiting; further ones are refused.
        deadline_s: how long a request may take.
        max_body_bytes: largest request, and most bytes it may have fetched from URLs.
        max_pixels: largest image.
        max_open_images: most decoded images that wait for the encoder or are in pipelines.
        max_prompts: most prompts of one request, or of one step of a pipeline.
        max_points: most points of one prompt.
        max_answer_bytes: largest binary answer, and largest answer of a pipeline.
        max_pipeline_parts: most steps of a pipeline that comes with a request; also most inputs,
            most outputs, and most values of one step.
        compile: what models of half precision send through `torch.compile`; as in `load`.
        embedding_entries: embeddings kept on the device, for each model.
        embedding_bytes: bytes of embeddings kept on the device, for each model.
        embedding_host_bytes: bytes of embeddings kept in host memory, for each model, and
        embedding_dir: folder of embeddings kept on disk, of all models; both as in `load`.
        embedding_disk_bytes: bound of that folder.
        logits_entries: low-resolution logits kept; 0 keeps none.
        on_conflict: what happens when an ``image_id`` comes back with other pixels.
        allow_urls: fetch images from URLs.
        allow_private_urls: also from private, loopback and link-local addresses.
        url_timeout_s: how long fetching one image may take, redirects included.
        allow_numpy: read images sent as ``.npy`` files.
        file_root: folder from which images may be named by path; none if not given.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    api_key: str | None = None
    window_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    max_batch: Limit = 16
    max_queue: Limit = 256
    deadline_s: Seconds = 60.0
    max_body_bytes: Limit = 32 * 2**20
    max_pixels: Limit = 32_000_000
    max_open_images: Limit = 32
    max_prompts: Limit = 1000
    max_points: Limit = 1000
    max_answer_bytes: Limit = 512 * 2**20
    max_pipeline_parts: Limit = 100
    compile: Literal["off", "encoder", "all"] = "off"
    embedding_entries: Count = 100
    embedding_bytes: Count = 2 * 2**30
    embedding_host_bytes: Count | None = None
    embedding_dir: Path | None = None
    embedding_disk_bytes: Count = DEFAULT_DISK_CACHE_BYTES
    logits_entries: Count = 1000
    on_conflict: Literal["refuse", "replace"] = "refuse"
    allow_urls: bool = True
    allow_private_urls: bool = False
    url_timeout_s: Seconds = 10.0
    allow_numpy: bool = False
    file_root: Path | None = None

    @classmethod
    def from_environment(cls, **chosen: Any) -> ServiceSettings:
        """Read the variables of the public server; what is chosen here goes before them.

        ``SAM2_MAX_EMBEDDING_CACHE_SIZE``, ``SAM2_MAX_LOGITS_CACHE_SIZE``,
        ``DISABLE_SAM2_LOGITS_CACHE`` and our own ``SAM2_BLOCKS_API_KEY``.

        Args:
            chosen: settings by name, also as texts; None leaves one as it is.

        Raises:
            Sam2BlocksError: if a variable is not what it should be.
            ValidationError: if what is chosen is not, or is no setting.
        """
        logits_entries = _count("SAM2_MAX_LOGITS_CACHE_SIZE", cls.logits_entries)
        found = {
            "api_key": os.environ.get("SAM2_BLOCKS_API_KEY") or None,
            "embedding_entries": _count("SAM2_MAX_EMBEDDING_CACHE_SIZE", cls.embedding_entries),
            "logits_entries": 0 if _switch("DISABLE_SAM2_LOGITS_CACHE") else logits_entries,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        return TypeAdapter(cls).validate_python({**found, **given})


def _count(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise Sam2BlocksError(f"{name}={text!r}: wants a number of entries, such as {default}.")
    return int(text) if text else default


def _switch(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text not in ("", "0", "1", "true", "false", "yes", "no"):
        raise Sam2BlocksError(f"{name}={text!r}: wants true or false.")
    return text in ("1", "true", "yes")

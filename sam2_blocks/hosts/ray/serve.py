"""The service as a Ray Serve deployment.

A replica knows the images it has seen: with several replicas, send the image along with its
``image_id``, and the worst that happens is that it is embedded once in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.errors import MissingExtraError


class ServeOptions(BaseModel):
    """What ``serve run`` and a Serve config file may set."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="nano", description="Models, separated by commas.")
    device: str = "auto"
    dtype: str = "auto"
    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(
        default=1, gt=0, description="CPUs of each replica, and with them its threads."
    )
    gpus: float = Field(default=0, ge=0, description="GPUs of each replica.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Fields of sam2_blocks.service.ServiceSettings."
    )


def build_app(options: ServeOptions | Mapping[str, Any]) -> Any:
    """Make a Ray Serve application whose replicas each load the models.

    Args:
        options: models, replicas, CPUs, GPUs and settings; a mapping of texts from ``serve run``.

    Returns:
        An application for ``serve.run`` or ``serve run``.

    Raises:
        MissingExtraError: if Ray Serve is not installed.
        Sam2BlocksError: if an environment variable is not what it should be.
        ValidationError: if an option or a setting is unknown or wrong.
    """
    from sam2_blocks.service import ServiceSettings

    options = ServeOptions.model_validate(options)
    settings = ServiceSettings.from_environment(**options.settings)
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError(f"{error}. Run: pip install 'sam2-blocks[ray]'") from error

    def create() -> Any:
        """Run on the replica: models cannot travel."""
        from sam2_blocks.hosts.http import create_app
        from sam2_blocks.service import load_models

        plugins = load_plugins()
        names = options.model.split(",")
        models = load_models(
            names, plugins.executors, settings, device=options.device, dtype=options.dtype
        )
        return create_app(models, settings, plugins=plugins)

    deployment = serve.deployment(
        serve.ingress(create)(),
        name="sam2_blocks",
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        max_ongoing_requests=settings.max_queue,
    )
    return deployment.bind()

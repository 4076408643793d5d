"""The models a service answers with; any other is refused, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from sam2_blocks.engine.builtin import load_sam2
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executors import (
    Executor,
    ExecutorFactory,
    Family,
    Loaded,
    WarmsUp,
    require,
)
from sam2_blocks.requests import Sam2InferenceRequest
from sam2_blocks.service.errors import UnknownModelError
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.values import DEFAULT_FAMILY, full_name


class ServedModels(Resources):
    """Models by every name they may be asked for; all are loaded before the first request.

    Pipelines get the same ones, so embeddings are cached once. Those that embed and segment answer
    requests; the others are there for pipelines.

    Args:
        models: by name; the first executor is the default.

    Raises:
        ModelError: if there is no executor among them.
    """

    def __init__(self, models: Mapping[str, Loaded]) -> None:
        super().__init__({})
        self._by_name = dict(models)
        self._by_name |= {model.spec.model: model for model in models.values()}
        self._by_name |= {model.spec.full_name: model for model in models.values()}
        if not self.executors:
            raise ModelError("a service needs at least one model that embeds and segments.")

    @property
    def default(self) -> Executor:
        """The model of requests that name none."""
        return self.executors[0]

    @property
    def names(self) -> list[str]:
        """Every name a model may be asked for by, the default first."""
        return list(self._by_name)

    @property
    def executors(self) -> list[Executor]:
        """Every executor, once."""
        return [model for model in self.all if isinstance(model, Executor)]

    @property
    def all(self) -> list[Loaded]:
        """Every model, once."""
        return list({id(model): model for model in self._by_name.values()}.values())

    def of_request(self, request: Sam2InferenceRequest) -> Executor:
        """Find the model a request asks for.

        Raises:
            UnknownModelError: if it is not served.
        """
        names = _names_asked_for(request, self.default.spec.model)
        return require(self._find(names), Executor) if names else self.default

    def loaded(
        self,
        name: str,
        *,
        family: str = DEFAULT_FAMILY,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        input_px: int = 0,
    ) -> Loaded:
        """Return the model of this name; see `Resources.loaded`.

        Raises:
            UnknownModelError: if it is not served, or not on that device in that dtype, by that
                backend or at that size.
        """
        model = self._find([name, full_name(name, family)])
        spec = model.spec
        if device not in ("auto", spec.device) or dtype not in ("auto", spec.dtype):
            raise UnknownModelError(
                f"{name!r} is served on {spec.device!r} in {spec.dtype!r} here, not on "
                f"{device!r} in {dtype!r}. Leave device and dtype out."
            )
        if backend not in ("auto", spec.backend) or input_px not in (0, spec.input_px):
            raise UnknownModelError(
                f"{name!r} is computed by {spec.backend!r} here, at {_size_of(spec.input_px)}, "
                f"not by {backend!r} at {_size_of(input_px)}. Leave backend and input_px out."
            )
        return model

    def _find(self, names: Sequence[str]) -> Loaded:
        for name in names:
            if name in self._by_name:
                return self._by_name[name]
        hint = did_you_mean(names[0], self._by_name)
        raise UnknownModelError(f"there is no model {names[0]!r} here.{hint}")


def _size_of(input_px: int) -> str:
    return f"{input_px} px" if input_px else "the size it was trained with"


def load_models(
    names: Sequence[str],
    families: Mapping[str, Family | ExecutorFactory],
    settings: ServiceSettings,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> ServedModels:
    """Load models and warm them up.

    Args:
        names: models, the default first. ``asked=model`` answers requests for ``asked`` with
            ``model``, such as ``hiera_large=nano``.
        families: those of plugins, by name.
        settings: bounds of the embedding cache.
        device: for all of them.
        dtype: for all of them.

    Raises:
        ModelError: if one cannot be loaded.
    """
    resources = Resources({**families, DEFAULT_FAMILY: _sam2_loader(settings)})
    models: dict[str, Loaded] = {}
    for name in names:
        asked, equals, model = name.partition("=")
        loaded = resources.loaded(model if equals else asked, device=device, dtype=dtype)
        models.setdefault(asked, loaded)
        models.setdefault(loaded.spec.model.removeprefix("sam2.1/"), loaded)
    served = ServedModels(models)
    for loaded in served.all:
        if isinstance(loaded, WarmsUp):
            loaded.warm_up()
    return served


def _sam2_loader(settings: ServiceSettings) -> ExecutorFactory:
    """Load as the settings say; they have backend and size, so nobody is asked for them."""
    return partial(
        load_sam2,
        compile=settings.compile,
        backend=settings.backend,
        input_px=settings.input_px,
        cache_bytes=settings.embedding_bytes,
        cache_entries=settings.embedding_entries,
        host_cache_bytes=settings.embedding_host_bytes,
        cache_dir=settings.embedding_dir,
        disk_cache_bytes=settings.embedding_disk_bytes,
    )


def _names_asked_for(request: Sam2InferenceRequest, default: str) -> list[str]:
    """The names a request may mean, best first; none for the default.

    ``sam2/`` in a model_id is no release. A release alone is that of the default model.
    """
    named = request.model_fields_set & {"model_id", "sam2_version_id"}
    version = request.sam2_version_id if named else None
    if named and request.model_id not in (None, f"sam2/{version}"):
        return [str(request.model_id)]
    releases = {"2.0": "sam2", "2.1": "sam2.1"}
    if request.model_version is not None:
        size = version or default.rpartition("/")[2]
        return [f"{releases[request.model_version]}/{size}"]
    if version is None:
        return []
    return [version, *(f"{releases[release]}/{version}" for release in ("2.1", "2.0"))]

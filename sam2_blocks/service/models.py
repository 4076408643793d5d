"""The models a service answers with; any other is refused, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sam2_blocks.engine.builtin import load_sam2
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executors import DEFAULT_FACTORY, Executor, ExecutorFactory
from sam2_blocks.requests import Sam2InferenceRequest
from sam2_blocks.service.errors import UnknownModelError
from sam2_blocks.service.settings import ServiceSettings


class ServedModels(Resources):
    """Executors by every name they may be asked for; all are loaded before the first request.

    Pipelines get the same ones, so embeddings are cached once.

    Args:
        executors: by name, the default first.
    """

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        super().__init__({})
        if not executors:
            raise ModelError("a service needs at least one model.")
        self._by_name = dict(executors)
        self._by_name |= {executor.spec.model: executor for executor in executors.values()}

    @property
    def default(self) -> Executor:
        """The model of requests that name none."""
        return next(iter(self._by_name.values()))

    @property
    def names(self) -> list[str]:
        """Every name a model may be asked for by, the default first."""
        return list(self._by_name)

    @property
    def executors(self) -> list[Executor]:
        """Every executor, once."""
        return list({id(executor): executor for executor in self._by_name.values()}.values())

    def of_request(self, request: Sam2InferenceRequest) -> Executor:
        """Find the model a request asks for.

        Raises:
            UnknownModelError: if it is not served.
        """
        return self._find(_names_asked_for(request, self.default.spec.model))

    def executor(self, model: str, *, device: str = "auto", dtype: str = "auto") -> Executor:
        """Return the executor of this name; see `Resources.executor`.

        Raises:
            UnknownModelError: if it is not served, or not on that device in that dtype.
        """
        executor = self._find([model])
        spec = executor.spec
        if device not in ("auto", spec.device) or dtype not in ("auto", spec.dtype):
            raise UnknownModelError(
                f"{model!r} is served on {spec.device!r} in {spec.dtype!r} here, not on "
                f"{device!r} in {dtype!r}. Leave device and dtype out."
            )
        return executor

    def _find(self, names: Sequence[str]) -> Executor:
        for name in names:
            if name in self._by_name:
                return self._by_name[name]
        if not names:
            return self.default
        hint = did_you_mean(names[0], self._by_name)
        raise UnknownModelError(f"there is no model {names[0]!r} here.{hint}")


def load_models(
    names: Sequence[str],
    factories: Mapping[str, ExecutorFactory],
    settings: ServiceSettings,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> ServedModels:
    """Load models and warm them up.

    Args:
        names: models, the default first. ``asked=model`` answers requests for ``asked`` with
            ``model``, such as ``hiera_large=nano``.
        factories: executor factories of plugins, by name.
        settings: bounds of the embedding cache.
        device: for all of them.
        dtype: for all of them.

    Raises:
        ModelError: if one cannot be loaded.
    """
    loaders = {**factories, DEFAULT_FACTORY: _sam2_loader(settings)}
    resources = Resources(loaders)
    executors: dict[str, Executor] = {}
    for name in names:
        asked, equals, model = name.partition("=")
        executor = resources.executor(model if equals else asked, device=device, dtype=dtype)
        executors.setdefault(asked, executor)
        executors.setdefault(executor.spec.model.removeprefix("sam2.1/"), executor)
    served = ServedModels(executors)
    for executor in served.executors:
        warm_up: Callable[[], None] = getattr(executor, "warm_up", _nothing)
        warm_up()
    return served


def _sam2_loader(settings: ServiceSettings) -> ExecutorFactory:
    return partial(
        load_sam2,
        compile=settings.compile,
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


def _nothing() -> None:
    return

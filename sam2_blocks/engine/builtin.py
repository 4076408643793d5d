"""Our own blocks, brought through the same hooks as anyone's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_blocks.engine import exporters
from sam2_blocks.engine.hookspecs import Host, HostReport, hookimpl
from sam2_blocks.engine.places import Exporter
from sam2_blocks.executor.weights import names
from sam2_blocks.executor.weights.labels import classes_of
from sam2_blocks.executors import Executor, Family, KnownModel, Loaded
from sam2_blocks.kinds import BUILTIN_KINDS, Kind
from sam2_blocks.language.manifest import manifest_dir
from sam2_blocks.values import DEFAULT_FAMILY

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins

HOSTS = ("roboflow", "comfyui", "ray", "http", "labelstudio", "cvat", "fiftyone")
"""Rooms of `sam2_blocks.hosts`, in the order they are listed."""


def load_sam2(model: str, *, device: str, dtype: str, **options: Any) -> Executor:
    """Load a SAM 2 model; imports torch, hence only when a step needs it.

    Args:
        model: name or path; the prefix ``sam2:`` may be there.
        device: as in `sam2_blocks.executor.load`.
        dtype: as there.
        options: the other arguments of it.
    """
    from sam2_blocks.executor import load

    executor: Executor = load(
        model.removeprefix(f"{DEFAULT_FAMILY}:"), device=device, dtype=dtype, **options
    )
    return executor


def load_transformers(model: str, *, device: str, dtype: str) -> Loaded:
    """Load a detector of the ``transformers`` library; imports torch and it, hence late.

    Args:
        model: path or repository; the prefix ``transformers:`` may be there.
        device: as in `sam2_blocks.executor.transformers.loading.load`.
        dtype: as there.
    """
    from sam2_blocks.executor.transformers.loading import load

    return load(model, device=device, dtype=dtype)


@hookimpl
def register_manifests() -> Iterable[Path]:
    """Bring the manifests folder."""
    return [manifest_dir()]


@hookimpl
def register_kinds() -> Iterable[Kind]:
    """Bring the built-in kinds."""
    return BUILTIN_KINDS


@hookimpl
def register_executors() -> Mapping[str, Family]:
    """Bring the family of SAM 2, and that of detectors."""
    sam2 = Family(
        load_sam2,
        exhaustive=True,
        options=frozenset({"backend", "input_px"}),
        is_file=_is_sam2_file,
        is_download=_is_sam2_download,
        find_problem=names.find_problem,
    )
    detectors = Family(
        load_transformers,
        is_file=names.is_path,
        is_download=_is_other_detector,
        find_problem=names.find_folder_problem,
        class_names=classes_of,
    )
    return {DEFAULT_FAMILY: sam2, "transformers": detectors}


def _is_other_detector(name: str) -> bool:
    """Whether a name is of the hub and none of those that we offer."""
    from sam2_blocks.executor.weights.catalogue import DETECTORS

    return names.is_hub_name(name) and all(name != known.name for known in DETECTORS)


def _is_sam2_file(name: str) -> bool:
    from sam2_blocks.executor.weights.catalogue import is_catalogued

    return not is_catalogued(name) and names.is_path(name)


def _is_sam2_download(name: str) -> bool:
    """Whether a name is of the hub; ``sam2.1/hiera_tinny`` is a misspelt one of the catalogue."""
    from sam2_blocks.executor.weights.catalogue import is_catalogued, is_of_a_release

    return names.is_hub_name(name) and not is_catalogued(name) and not is_of_a_release(name)


@hookimpl
def register_models() -> Iterable[KnownModel]:
    """Bring the public checkpoints, ``nano`` and some detectors."""
    from sam2_blocks.executor.weights.catalogue import DETECTORS, MODELS

    return (*MODELS.values(), *DETECTORS)


@hookimpl
def register_hosts() -> Mapping[str, Host]:
    """Bring our own hosts."""
    return {name: _OwnHost(name) for name in HOSTS}


@dataclass(frozen=True)
class _OwnHost:
    """A room of `sam2_blocks.hosts`, which is above us: imported when somebody asks."""

    name: str

    def report(self, plugins: Plugins) -> HostReport:
        """See `Host`."""
        made: HostReport = import_module(f"sam2_blocks.hosts.{self.name}").report(plugins)
        return made


@hookimpl
def register_exporters() -> Mapping[str, Exporter]:
    """Bring the file writers."""
    return exporters.BUILTIN_EXPORTERS

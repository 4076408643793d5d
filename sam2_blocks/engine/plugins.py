"""Plugins: each entry point is loaded alone, and a broken one never stops the rest."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from sam2_blocks.engine import builtin, hookspecs
from sam2_blocks.engine.hookspecs import PROJECT
from sam2_blocks.engine.places import Exporter, SinkFactory, SourceFactory
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import PluginError, did_you_mean
from sam2_blocks.executors import ExecutorFactory
from sam2_blocks.kinds import Kind
from sam2_blocks.language.manifest import Manifest, iter_yaml_files, load_manifest

ENTRY_POINT_GROUP = "sam2_blocks"
SWITCH = "SAM2_BLOCKS_PLUGINS"
"""Unset loads every plugin, empty loads none, else a comma-separated list of names."""


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    Attributes:
        name: of the entry point; ``builtin`` for our own.
        distribution: name of the installed package, if known.
        version: of that package.
        blocks: ids of the blocks it brought.
        error: last line of the traceback if it is broken.
        traceback: all of it.
    """

    name: str
    distribution: str = ""
    version: str = ""
    blocks: tuple[str, ...] = ()
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Plugins:
    """Everything that plugins brought, ready to build and run pipelines with."""

    manager: pluggy.PluginManager
    kinds: dict[str, Kind] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    executors: dict[str, ExecutorFactory] = field(default_factory=dict)
    exporters: dict[str, Exporter] = field(default_factory=dict)
    sources: dict[str, SourceFactory] = field(default_factory=dict)
    sinks: dict[str, SinkFactory] = field(default_factory=dict)
    records: list[PluginRecord] = field(default_factory=list)

    def resources(self, out_dir: str | Path = ".", **options: Any) -> Resources:
        """Make a new registry of executors; options are those of `Resources`."""
        return Resources(self.executors, out_dir, **options)

    def register(
        self, plugin: object, name: str, distribution: str = "", version: str = ""
    ) -> None:
        """Add one plugin: all of what it brings, or nothing if any of it is wrong.

        Raises:
            PluginError: if a hook is misspelt, a name is taken, or a manifest is wrong.
        """
        self.manager.register(plugin, name)
        try:
            self.manager.check_pending()
            brought = _collect(self, plugin)
        except Exception as error:
            self.manager.unregister(plugin)
            raise PluginError(f"plugin {name!r}: {error}") from error
        self.kinds.update(brought.kinds)
        self.manifests.update(brought.manifests)
        self.executors.update(brought.executors)
        self.exporters.update(brought.exporters)
        self.sources.update(brought.sources)
        self.sinks.update(brought.sinks)
        blocks = tuple(brought.manifests)
        self.records.append(PluginRecord(name, distribution, version, blocks))


@dataclass(frozen=True)
class _Brought:
    kinds: dict[str, Kind]
    manifests: dict[str, Manifest]
    executors: dict[str, ExecutorFactory]
    exporters: dict[str, Exporter]
    sources: dict[str, SourceFactory]
    sinks: dict[str, SinkFactory]


def load_plugins(*, strict: bool = False, points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the built-in blocks and every installed plugin.

    Args:
        strict: raise on the first broken plugin instead of recording it.
        points: entry points to load; the installed ones of group ``sam2_blocks`` if not given.

    Raises:
        PluginError: if ``strict`` and a plugin is broken.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager)
    plugins.register(builtin, "builtin", "sam2-blocks")
    found = list(entry_points(group=ENTRY_POINT_GROUP) if points is None else points)
    switch = os.environ.get(SWITCH)
    wanted = None if switch is None else {name.strip() for name in switch.split(",")} - {""}
    for point in sorted(found, key=lambda point: point.name):
        if wanted is None or point.name in wanted:
            _load_one(plugins, point, strict=strict)
    names = {point.name for point in found}
    for name in sorted((wanted or set()) - names):
        message = f"{SWITCH} names it, but it is not installed.{did_you_mean(name, names)}"
        if strict:
            raise PluginError(f"plugin {name!r}: {message}")
        plugins.records.append(PluginRecord(name, error=message))
    return plugins


def _load_one(plugins: Plugins, point: EntryPoint, *, strict: bool) -> None:
    distribution = point.dist.name if point.dist else ""
    version = point.dist.version if point.dist else ""
    try:
        plugins.register(point.load(), point.name, distribution, version)
    except (Exception, SystemExit) as error:  # third-party code may fail in any way; record it
        if strict:
            raise PluginError(f"plugin {point.name!r} ({point.value}): {error}") from error
        plugins.records.append(
            PluginRecord(
                point.name,
                distribution,
                version,
                error=f"{type(error).__name__}: {error}",
                traceback=traceback.format_exc(),
            )
        )


def _collect(plugins: Plugins, plugin: object) -> _Brought:
    """Call the registering hooks of one plugin alone."""
    manager = plugins.manager
    others = [other for other in manager.get_plugins() if other is not plugin]

    def call(hook: str) -> list[Any]:
        caller: Callable[[], list[Any]] = manager.subset_hook_caller(hook, others)
        return caller()

    kinds: dict[str, Kind] = {}
    for kind in (kind for result in call("register_kinds") for kind in result):
        _claim(kind.name, "kind", plugins.kinds, kinds)
        kinds[kind.name] = kind
    executors = _named(call("register_executors"), "executor", plugins.executors)
    exporters = _named(call("register_exporters"), "exporter", plugins.exporters)
    for name, exporter in exporters.items():
        if not isinstance(exporter, Exporter):
            got = type(exporter).__name__
            raise PluginError(f"exporter {name!r}: wants an Exporter(suffix, write), got {got}.")
    sources = _named(call("register_sources"), "source", plugins.sources)
    sinks = _named(call("register_sinks"), "sink", plugins.sinks)
    manifests: dict[str, Manifest] = {}
    for folder in (folder for result in call("register_manifests") for folder in result):
        for manifest in _manifests_in(folder, {**plugins.kinds, **kinds}):
            _claim(manifest.id, "block", plugins.manifests, manifests)
            manifests[manifest.id] = manifest
    return _Brought(kinds, manifests, executors, exporters, sources, sinks)


def _named(
    results: Iterable[Mapping[str, Any]], what: str, taken: Mapping[str, object]
) -> dict[str, Any]:
    """Gather what the implementations of one hook return by name."""
    named: dict[str, Any] = {}
    for name, value in (pair for result in results for pair in result.items()):
        _claim(name, what, taken, named)
        named[name] = value
    return named


def _claim(name: str, what: str, *taken: Mapping[str, object]) -> None:
    if any(name in names for names in taken):
        raise PluginError(f"{what} {name!r} is registered already; choose another name.")


def _manifests_in(folder: Path, kinds: Mapping[str, Kind]) -> Iterable[Manifest]:
    for file in iter_yaml_files(folder):
        yield load_manifest(file.read_text(encoding="utf-8"), file.name, kinds)

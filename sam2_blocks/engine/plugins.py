"""Plugins: each entry point is loaded alone, and a broken one never stops the rest."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from sam2_blocks.engine import builtin, hookspecs
from sam2_blocks.engine.hookspecs import PROJECT, Host, HostReport
from sam2_blocks.engine.models import ModelNames
from sam2_blocks.engine.pipelines import folders_of_environment, pipeline_blocks
from sam2_blocks.engine.places import Exporter, SinkFactory, SourceFactory
from sam2_blocks.engine.resources import Resources, as_families
from sam2_blocks.errors import ForeignError, PluginError, as_error, did_you_mean, message_of
from sam2_blocks.executors import Family, KnownModel
from sam2_blocks.kinds import Kind
from sam2_blocks.language.manifest import Manifest, iter_yaml_files, load_manifest
from sam2_blocks.language.pipeline import Pipeline, load_pipeline

ENTRY_POINT_GROUP = "sam2_blocks"
SWITCH = "SAM2_BLOCKS_PLUGINS"
"""Unset loads every plugin, empty loads none, else a comma-separated list of names."""

WANTED: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "kinds": ("a Kind", lambda one: isinstance(one, Kind)),
    "executors": (
        "a Family, or a factory",
        lambda one: isinstance(one, Family) and callable(one.load),
    ),
    "models": (
        "a KnownModel whose names are texts",
        lambda one: isinstance(one, KnownModel) and all(isinstance(n, str) for n in one.names),
    ),
    "exporters": ("an Exporter(suffix, write)", lambda one: isinstance(one, Exporter)),
    "sources": ("a function (text, request)", callable),
    "sinks": ("a function (request)", callable),
    "hosts": ("an object with 'report'", lambda one: True),  # asked when it has to
}
"""What a plugin may bring, by the field of `Plugins` that it goes to."""


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
    """Everything that plugins brought, ready to build and run pipelines with.

    `load_plugins` makes one. Each mapping is by the name that pipelines and commands use.

    Attributes:
        manager: calls the hooks that run beside steps.
        kinds: such as ``image``.
        manifests: blocks by id, such as ``sam2/segment@v1``.
        executors: families of models.
        models: known models by their full names.
        exporters: by the kind that they write.
        sources: factories of sources.
        sinks: factories of sinks.
        hosts: engines that blocks run inside.
        records: what became of each plugin, the broken ones too, in the order of loading.
    """

    manager: pluggy.PluginManager
    kinds: dict[str, Kind] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    executors: dict[str, Family] = field(default_factory=dict)
    models: dict[str, KnownModel] = field(default_factory=dict)
    exporters: dict[str, Exporter] = field(default_factory=dict)
    sources: dict[str, SourceFactory] = field(default_factory=dict)
    sinks: dict[str, SinkFactory] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    records: list[PluginRecord] = field(default_factory=list)

    def resources(self, out_dir: str | Path = ".", **options: Any) -> Resources:
        """Make a new registry of models; options are those of `Resources`."""
        return Resources(self.executors, out_dir, **options)

    def with_blocks(self, *manifests: Manifest) -> Plugins:
        """Return the same with more blocks, such as those of `sam2_blocks.detector_block`.

        Args:
            manifests: of the blocks.

        Raises:
            PluginError: if there is a block of that id already.
        """
        taken = [manifest.id for manifest in manifests if manifest.id in self.manifests]
        if taken:
            raise PluginError(f"there is a block {taken[0]!r} already; give yours another id.")
        return replace(self, manifests={**self.manifests, **{m.id: m for m in manifests}})

    @property
    def model_names(self) -> ModelNames:
        """What is known about the names of models and devices."""
        return ModelNames(self.executors, self.models)

    def host_reports(self) -> list[HostReport]:
        """Ask every host what it offers.

        Raises:
            PluginError: if one cannot say.
        """
        reports = []
        for name, host in self.hosts.items():
            try:
                reports.append(host.report(self))
            except BaseException as error:  # a plugin's code may fail in any way
                cause = as_error(error)
                raise PluginError(f"host {name!r}: {message_of(cause)}") from cause
        return reports

    def load_pipeline(self, source: str | Path | Mapping[str, Any]) -> Pipeline:
        """Read and check a pipeline, its models, devices and packages too; nothing is loaded.

        Args:
            source: path of a YAML file, or the document as plain data.

        Raises:
            PipelineError: with every problem found.
        """
        checks = self.model_names.checks
        return load_pipeline(source, self.manifests, self.kinds, checks=checks, packages=True)

    def register(
        self, plugin: object, name: str, distribution: str = "", version: str = ""
    ) -> None:
        """Add one plugin: all of what it brings, or nothing if any of it is wrong.

        Args:
            plugin: a module or an object whose functions are marked with `hookimpl`.
            name: for messages and records; no two plugins share one.
            distribution: name of the package it is from, for people.
            version: of that package.

        Raises:
            PluginError: if a hook is misspelt, a name is taken, or a manifest is wrong.
        """
        one = _Plugin(name, distribution, version, lambda: plugin)
        self._add([one])
        if one.error is not None:
            raise PluginError(f"plugin {name!r}: {message_of(one.error)}") from one.error
        self.records.append(one.record())

    def _add(self, plugins: Sequence[_Plugin]) -> None:
        """Add plugins together, so that each knows the kinds of all; some may get an ``error``."""
        for one in plugins:
            try:
                self._enter(one)
            except BaseException as error:  # third-party code may fail in any way
                one.error = as_error(error)
        whole = [one for one in plugins if one.error is None]
        while broken := self._read_manifests(whole):  # others may use the kinds of these
            self._withdraw(broken)
            whole = [one for one in whole if one.error is None]
        names = self.model_names
        self.manifests.update({id: names.suggest(found) for id, found in self.manifests.items()})

    def _enter(self, one: _Plugin) -> None:
        """Import a plugin and take what it brings, but for its manifests."""
        one.plugin = one.load()
        self.manager.register(one.plugin, one.name)
        try:
            self.manager.check_pending()
            one.folders, one.pipelines, one.brought = _collect(self.manager, one.plugin)
            for what, brought in one.brought.items():
                for name in brought:
                    _check_free(name, what.removesuffix("s"), getattr(self, what))
        except BaseException:
            self.manager.unregister(one.plugin)
            raise
        for what, brought in one.brought.items():
            getattr(self, what).update(brought)

    def _read_manifests(self, plugins: Sequence[_Plugin]) -> list[_Plugin]:
        """Read the manifests of these plugins anew and return those whose are wrong."""
        for one in plugins:
            for block in one.manifests:
                del self.manifests[block]
            one.manifests = {}
        for one in plugins:
            try:
                self._offer(one, _manifests_in(one.folders, self.kinds))
            except BaseException as error:
                one.error = as_error(error)
        for one in plugins:  # pipelines are made of the blocks of all
            try:
                self._offer(one, self._pipelines_in(one.pipelines))
            except BaseException as error:
                one.error = as_error(error)
        return [one for one in plugins if one.error is not None]

    def _offer(self, one: _Plugin, found: Mapping[str, Manifest]) -> None:
        """Add blocks of a plugin, all or none."""
        for block in found:
            _check_free(block, "block", self.manifests)
        one.manifests = {**one.manifests, **found}
        self.manifests.update(found)

    def _pipelines_in(self, folders: Iterable[Path]) -> dict[str, Manifest]:
        checks = self.model_names.checks
        made = pipeline_blocks(folders, self.manifests, self.kinds, checks)
        return _by_name("block", ((manifest.id, manifest) for manifest in made))

    def _withdraw(self, plugins: Iterable[_Plugin]) -> None:
        for one in plugins:
            self.manager.unregister(one.plugin)
            for what, brought in one.brought.items():
                for name in brought:
                    del getattr(self, what)[name]


@dataclass(eq=False)
class _Plugin:
    """One plugin that is being added.

    Attributes:
        name: see `PluginRecord`, as for the next two.
        distribution: of the package.
        version: of the package.
        load: imports it.
        plugin: what was imported.
        folders: of its manifests.
        pipelines: folders of its pipelines.
        brought: what it registers, by field of `Plugins` and by name.
        manifests: its blocks by id.
        error: what was wrong, if it is broken.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    plugin: object = None
    folders: Sequence[Path] = ()
    pipelines: Sequence[Path] = ()
    brought: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    error: Exception | None = None

    def record(self) -> PluginRecord:
        """What became of it."""
        who = PluginRecord(self.name, self.distribution, self.version, tuple(self.manifests))
        error = self.error
        if error is None:
            return who
        message = message_of(error)
        if not isinstance(error, ForeignError):
            message = f"{type(error).__name__}: {message}"
        trace = "".join(traceback.format_exception(error))
        return replace(who, error=message, traceback=trace)


def load_plugins(*, strict: bool = False, points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the built-in blocks and every installed plugin.

    They load together: a plugin may use the kinds of any other. The variable
    ``SAM2_BLOCKS_PLUGINS`` may name the plugins to load, separated by commas.

    Args:
        strict: raise on the first broken plugin; else it is left out, and `Plugins.records` says
            why.
        points: entry points to load; the installed ones of group ``sam2_blocks`` if not given.
            An empty list leaves our own blocks alone.

    Returns:
        All blocks, kinds, models, exporters, sources, sinks and hosts that there are.

    Raises:
        PluginError: if ``strict`` and a plugin is broken.

    Example:
        >>> plugins = load_plugins(points=[])  # our own blocks alone
        >>> plugins.manifests["sam2/segment@v1"].title
        'SAM 2 segment'
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager)
    plugins.register(builtin, "builtin", "sam2-blocks")
    found = list(entry_points(group=ENTRY_POINT_GROUP) if points is None else points)
    switch = os.environ.get(SWITCH)
    wanted = None if switch is None else {name.strip() for name in switch.split(",")} - {""}
    chosen = [point for point in found if wanted is None or point.name in wanted]
    _load_all(plugins, sorted(chosen, key=lambda point: point.name), strict=strict)
    if points is None:
        _load_folders(plugins, strict=strict)
    names = {point.name for point in found}
    for name in sorted((wanted or set()) - names):
        message = f"{SWITCH} names it, but it is not installed.{did_you_mean(name, names)}"
        if strict:
            raise PluginError(f"plugin {name!r}: {message}")
        plugins.records.append(PluginRecord(name, error=message))
    return plugins


def _load_all(plugins: Plugins, points: Sequence[EntryPoint], *, strict: bool) -> None:
    entered = [
        _Plugin(
            point.name,
            point.dist.name if point.dist else "",
            point.dist.version if point.dist else "",
            point.load,
        )
        for point in points
    ]
    plugins._add(entered)
    for point, one in zip(points, entered, strict=True):
        if strict and one.error is not None:
            where = f"plugin {point.name!r} ({point.value})"
            raise PluginError(f"{where}: {message_of(one.error)}") from one.error
        plugins.records.append(one.record())


def _load_folders(plugins: Plugins, *, strict: bool) -> None:
    """Make blocks of the pipelines in folders that the environment names."""
    for folder in folders_of_environment():
        one = _Plugin(str(folder.folder), "", "", lambda folder=folder: folder)  # type: ignore[misc]
        plugins._add([one])
        if strict and one.error is not None:
            where = f"pipelines in {str(folder.folder)!r}"
            raise PluginError(f"{where}: {message_of(one.error)}") from one.error
        plugins.records.append(one.record())


def _collect(
    manager: pluggy.PluginManager, plugin: object
) -> tuple[list[Path], list[Path], dict[str, dict[str, Any]]]:
    """Call the registering hooks of one plugin alone.

    Returns:
        Folders of manifests and of pipelines; and by field of `Plugins` what goes there, by name.
    """
    others = [other for other in manager.get_plugins() if other is not plugin]

    def call(hook: str) -> list[Any]:
        caller: Callable[[], list[Any]] = manager.subset_hook_caller(hook, others)
        return caller()

    def listed(hook: str) -> list[Any]:
        return [one for result in call(hook) for one in result]

    def mapped(hook: str) -> dict[str, Any]:
        return {name: one for result in call(hook) for name, one in result.items()}

    brought = {
        "kinds": _by_name("kind", [(kind.name, kind) for kind in listed("register_kinds")]),
        "executors": dict(as_families(mapped("register_executors"))),
        "models": _by_name("model", [(m.full_name, m) for m in listed("register_models")]),
        "exporters": mapped("register_exporters"),
        "sources": mapped("register_sources"),
        "sinks": mapped("register_sinks"),
        "hosts": mapped("register_hosts"),
    }
    for what, named in brought.items():
        for name, one in named.items():
            _check_brought(what, name, one)
    folders = (listed(hook) for hook in ("register_manifests", "register_pipelines"))
    manifests, pipelines = (list(map(_folder, found)) for found in folders)
    return manifests, pipelines, brought


def _check_brought(what: str, name: object, one: object) -> None:
    """Refuse now what would fail whoever looks through all that plugins brought."""
    who = f"{what.removesuffix('s')} {name!r}"
    if not isinstance(name, str):
        raise PluginError(f"{who}: a name wants to be a text, got {type(name).__name__}.")
    wanted, is_one = WANTED[what]
    if not is_one(one):
        raise PluginError(f"{who}: wants {wanted}, got {type(one).__name__}.")


def _folder(given: Any) -> Path:
    if isinstance(given, str):
        return Path(given)
    if not hasattr(given, "iterdir"):  # what `importlib.resources` gives has it, too
        raise PluginError(f"a folder of manifests or pipelines is a path, got {given!r:.100}.")
    return given  # type: ignore[no-any-return]


def _by_name(what: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in pairs:
        _check_free(name, what, found)
        found[name] = one
    return found


def _check_free(name: str, what: str, taken: Mapping[str, object]) -> None:
    if name in taken:
        hint = (
            "a kind has one exporter, so give it to a kind of your own"
            if what == "exporter"
            else "choose another name"
        )
        raise PluginError(f"{what} {name!r} is registered already; {hint}.")


def _manifests_in(folders: Iterable[Path], kinds: Mapping[str, Kind]) -> dict[str, Manifest]:
    read = (
        load_manifest(file.read_text(encoding="utf-8"), file.name, kinds)
        for folder in folders
        for file in iter_yaml_files(folder)
    )
    return _by_name("block", ((manifest.id, manifest) for manifest in read))

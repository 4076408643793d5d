"""Every hook a plugin may implement, and what the things it returns must offer.

Arguments may be added in later releases, never renamed; an implementation asks for the ones it
needs by name. Mark implementations with `sam2_blocks.hookimpl`. Do not rely on call order: not
between plugins, and not between the hooks of one. ``docs/hooks.md`` has a runnable example for
each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from sam2_blocks.engine.places import Exporter, SinkFactory, SourceFactory
from sam2_blocks.errors import StepError
from sam2_blocks.executors import ExecutorFactory, Family, KnownModel
from sam2_blocks.kinds import Kind

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.language.pipeline import Step

PROJECT = "sam2_blocks"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a function, or a method, as the implementation of a hook.

Example:
    >>> class MyPlugin:  # usually a module, named in the entry point group sam2_blocks
    ...     @hookimpl
    ...     def register_manifests(self):
    ...         return []
    >>> plugins = load_plugins(points=[])
    >>> plugins.register(MyPlugin(), "mine")
"""


class HostReport(Protocol):
    """One host, for ``sam2-blocks hosts list``."""

    @property
    def title(self) -> str:
        """Name of the host."""
        ...

    @property
    def installed(self) -> str:
        """Distribution and version that was found; empty if there is none."""
        ...

    @property
    def how(self) -> str:
        """What a user does to have the blocks there."""
        ...

    @property
    def blocks(self) -> Mapping[str, str]:
        """The names that blocks have there, by block id."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why other blocks are not there, by block id."""
        ...


class Host(Protocol):
    """An engine that our blocks run inside; a module with this function will do, too."""

    def report(self, plugins: Plugins) -> HostReport:
        """Say what it offers, without importing it or torch."""
        ...


# What a plugin brings. Called once, when plugins load.


@hookspec
def register_manifests() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the folders that hold block manifests, usually ``[Path(__file__).parent]``."""


@hookspec
def register_pipelines() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return folders of pipelines; ``plates.yaml`` is the block ``pipelines/plates@v1``."""


@hookspec
def register_kinds() -> Iterable[Kind]:  # type: ignore[empty-body]
    """Return new kinds; a kind that exists already cannot be replaced."""


@hookspec
def register_executors() -> Mapping[str, Family | ExecutorFactory]:  # type: ignore[empty-body]
    """Return families of models by name; a model called ``name:…`` is loaded by ``name``."""


@hookspec
def register_models() -> Iterable[KnownModel]:  # type: ignore[empty-body]
    """Return the models of your families that are known by name, to download or embedded.

    They are listed by ``models list``, offered by hosts and editors, and known to ``validate``.
    """


@hookspec
def register_hosts() -> Mapping[str, Host]:  # type: ignore[empty-body]
    """Return further engines that blocks run inside, by name, for ``hosts list``."""


@hookspec
def register_exporters() -> Mapping[str, Exporter]:  # type: ignore[empty-body]
    """Return how a pipeline's outputs are written to files, by kind.

    Example:
        ``{"my_kind": Exporter(".txt", lambda value, file: file.write(value.text.encode()))}``
    """


@hookspec
def register_sources() -> Mapping[str, SourceFactory]:  # type: ignore[empty-body]
    """Return factories of sources by name; each is asked whether it reads an ``--input``.

    A factory gets the text of ``--input`` and the `RunRequest`, and returns a `Source`, or None if
    the text is not of its form. Ours, which read files, folders and patterns, are asked last.
    """


@hookspec
def register_sinks() -> Mapping[str, SinkFactory]:  # type: ignore[empty-body]
    """Return factories of sinks by name; each is asked whether it writes to an ``--out``.

    A factory gets the `RunRequest`, and returns a `Sink`, or None if ``out`` is not of its form.
    Ours, which writes a folder, is asked last.
    """


# What happens while a pipeline runs. `item_ids` names the items of the micro-batch; in a step with
# ``for_each`` it is called for elements, named ``photo.jpg[3]``. The steps after
# the last accelerated one run beside the next micro-batch: two threads may call at once.


@hookspec
def before_step(step: Step, item_ids: Sequence[str]) -> None:
    """Called before a block gets a micro-batch.

    Args:
        step: the step of the pipeline, with the manifest of its block.
        item_ids: names of the items, or of elements: ``photo.jpg[3]``.
    """


@hookspec
def after_step(step: Step, item_ids: Sequence[str], outputs: Sequence[Mapping[str, Any]]) -> None:
    """Called after a block ran a micro-batch.

    Args:
        step: as in `before_step`.
        item_ids: of the items that succeeded.
        outputs: of each of these, checked, by name.
    """


@hookspec
def on_step_error(step: Step, item_id: str, error: StepError) -> None:
    """Called for each item that a step failed on; the other items go on.

    Args:
        step: as in `before_step`.
        item_id: of the item or element.
        error: what was wrong; its ``__cause__`` is what the block raised.
    """


@hookspec
def on_step_skip(step: Step, item_id: str, reason: str) -> None:
    """Called for each item that a step does not run for.

    Args:
        step: as in `before_step`.
        item_id: of the item or element.
        reason: the condition of ``when`` that did not hold, or the missing input, for people.
    """

"""Every hook a plugin may implement.

Arguments may be added in later releases, never renamed; an implementation asks for the ones it
needs by name. Mark implementations with `sam2_blocks.hookimpl`. Do not rely on call order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from sam2_blocks.engine.places import Exporter, SinkFactory, SourceFactory
from sam2_blocks.errors import StepError
from sam2_blocks.executors import ExecutorFactory
from sam2_blocks.kinds import Kind

if TYPE_CHECKING:
    from sam2_blocks.language.pipeline import Step

PROJECT = "sam2_blocks"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# What a plugin brings. Called once, when plugins load.


@hookspec
def register_manifests() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the folders that hold block manifests, usually ``[Path(__file__).parent]``."""


@hookspec
def register_kinds() -> Iterable[Kind]:  # type: ignore[empty-body]
    """Return new kinds; a kind that exists already cannot be replaced."""


@hookspec
def register_executors() -> Mapping[str, ExecutorFactory]:  # type: ignore[empty-body]
    """Return executor factories by name; a model called ``name:…`` is loaded by ``name``."""


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


# What happens while a pipeline runs. `item_ids` names the items of the micro-batch. The steps after
# the last accelerated one run beside the next micro-batch: two threads may call at once.


@hookspec
def before_step(step: Step, item_ids: Sequence[str]) -> None:
    """Called before a block gets a micro-batch."""


@hookspec
def after_step(step: Step, item_ids: Sequence[str], outputs: Sequence[Mapping[str, Any]]) -> None:
    """Called with the checked outputs of the items that succeeded."""


@hookspec
def on_step_error(step: Step, item_id: str, error: StepError) -> None:
    """Called for each item that a step failed on; the other items go on."""

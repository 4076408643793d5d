"""A node of ComfyUI, made from the manifest of a block."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Any, Protocol

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import StepError
from sam2_blocks.hosts.bridge import BlockBridge
from sam2_blocks.hosts.comfyui.sockets import (
    HOST,
    input_types,
    listed_params,
    node_name,
    other_name,
    output_slots,
    takes_clips,
)
from sam2_blocks.hosts.comfyui.values import inputs_to_rows, outputs_to_values
from sam2_blocks.language.manifest import Manifest

CATEGORY = "sam2_blocks"
BATCH_SIZE = 8
"""Pictures that a block sees at once; small, since nobody can interrupt it meanwhile."""


class NodeClass(Protocol):
    """What ComfyUI reads from the class of a node."""

    RETURN_TYPES: tuple[str, ...]
    RETURN_NAMES: tuple[str, ...]
    OUTPUT_TOOLTIPS: tuple[str, ...]
    OUTPUT_IS_LIST: tuple[bool, ...]
    FUNCTION: str
    CATEGORY: str
    DESCRIPTION: str

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 (ComfyUI's name)
        """Fields by name, required, optional and hidden."""
        ...


def make_node(manifest: Manifest, plugins: Plugins, resources: Resources) -> type[NodeClass]:
    """Make the class of a block's node.

    Args:
        manifest: the block.
        plugins: where it comes from.
        resources: executors, shared by all nodes.
    """
    bridge = BlockBridge(manifest, plugins, resources, batch_size=BATCH_SIZE)
    slots = output_slots(manifest)
    defaults = manifest.for_host(HOST).defaults
    listed, is_clip = listed_params(manifest), takes_clips(manifest)

    class Node:
        RETURN_TYPES = tuple(slot.type for slot in slots)
        RETURN_NAMES = tuple(slot.name for slot in slots)
        OUTPUT_TOOLTIPS = tuple(slot.tooltip for slot in slots)
        OUTPUT_IS_LIST = tuple(slot.is_list for slot in slots)
        FUNCTION = "run"
        CATEGORY = CATEGORY
        DESCRIPTION = manifest.summary

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802
            return input_types(manifest)

        def run(
            self, *, unique_id: str = "?", individual_masks: bool = True, **given: Any
        ) -> tuple[Any, ...]:
            step = f"node {unique_id}"
            for name in listed:
                given[name] = given.pop(other_name(name), "") or given.get(name)
            try:
                rows = inputs_to_rows({**defaults, **given}, manifest)
            except ValueError as error:
                raise StepError(step, manifest.id, str(error)) from error
            problems = list(manifest.unmet_groups(rows[0]))
            if problems:
                raise StepError(step, manifest.id, " ".join(problems))
            try:
                made = bridge.run(rows, step=step, before_row=_stop_if_interrupted)
            finally:
                if is_clip:  # the next run is about another one, or the same anew
                    bridge.finish()
            try:
                return outputs_to_values(
                    made, rows, slots, individual_masks=individual_masks, dump=bridge.dump
                )
            except (TypeError, ValueError) as error:
                raise StepError(step, manifest.id, str(error)) from error

    if listed or manifest.requires:
        check = _make_check(manifest, listed)
        Node.VALIDATE_INPUTS = classmethod(check)  # type: ignore[attr-defined]
    Node.__name__ = Node.__qualname__ = node_name(manifest.id)
    return Node


def _make_check(manifest: Manifest, names: Sequence[str]) -> Callable[..., bool | str]:
    """Make what ComfyUI asks before it runs anything: whether packages are missing.

    It looks at the names of the arguments, and takes values of these that are not in their list:
    they are ours to check, and the block does. It hears an answer only if one of them has a value,
    as ``unique_id`` always has.
    """

    def validate(cls: type, **given: Any) -> bool | str:
        return " ".join(manifest.missing_packages()) or True

    named = ("cls", "unique_id", *names)
    arguments = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in named]
    validate.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    return validate


def _stop_if_interrupted() -> None:
    """Raise what ends ComfyUI's run if its user asked for that."""
    management = sys.modules.get("comfy.model_management")  # there, if ComfyUI is running
    if management is not None:
        management.throw_exception_if_processing_interrupted()

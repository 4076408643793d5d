"""Roboflow Workflows: a plugin of its engine, whose blocks are made from our manifests.

The engine finds it through ``WORKFLOWS_PLUGINS=sam2_blocks.hosts.roboflow`` and reads the names
below. ``sam2/segment@v1`` is ``sam2_blocks/segment@v1`` there, and any other block, such as
``draw/masks@v1``, is ``sam2_blocks/draw_masks@v1``; each answers to its own id as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.resources import LOCAL_MODELS_SWITCH, Resources
from sam2_blocks.hosts.bridge import HostReport, Offer, installed_version, make_offer
from sam2_blocks.hosts.roboflow.blocks import workflow_block, workflow_type
from sam2_blocks.hosts.roboflow.engine import OUR_KINDS, load_engine
from sam2_blocks.hosts.roboflow.values import (
    deserialize_embedding,
    deserialize_prompts,
    serialize_embedding,
)
from sam2_blocks.hosts.wire import prompts_to_json
from sam2_blocks.kinds import BUILTIN_KINDS

DISTRIBUTIONS = ("roboflow-workflows", "inference", "inference-gpu", "inference-cpu")


@cache
def _plugins() -> Plugins:
    return load_plugins()


@cache
def shared_resources() -> Resources:
    """The executors of all workflows in this process."""
    return _plugins().resources(local_models=os.environ.get(LOCAL_MODELS_SWITCH) == "1")


def load_kinds() -> list[Any]:
    """Give the engine the kinds it does not have."""
    return [load_engine().kinds[name] for name in OUR_KINDS]


@cache  # the engine asks at every compilation, and wants the same classes
def load_blocks() -> list[type[Any]]:
    """Give the engine a class for every block that can work there."""
    engine = load_engine()
    offer = find_offer(_plugins(), engine.kinds)
    return [workflow_block(manifest, _plugins(), engine) for manifest in offer.blocks.values()]


def find_offer(plugins: Plugins, kinds: Collection[str]) -> Offer:
    """Choose the blocks that can work in an engine with these kinds."""
    return make_offer(
        plugins, kinds=kinds, name_of=workflow_type, trusted=False, reserved=("name", "type")
    )


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it."""
    return HostReport(
        title="Roboflow Workflows",
        installed=installed_version(*DISTRIBUTIONS),
        how=f"set WORKFLOWS_PLUGINS={__name__}",
        offer=find_offer(plugins, [kind.name for kind in BUILTIN_KINDS]),
    )


REGISTERED_INITIALIZERS: dict[str, Callable[[], Any]] = {"resources": shared_resources}
KINDS_SERIALIZERS: dict[str, Callable[[Any], Any]] = {
    "image_embedding": serialize_embedding,
    "prompts": prompts_to_json,
}
KINDS_DESERIALIZERS: dict[str, Callable[[str, Any], Any]] = {
    "image_embedding": deserialize_embedding,
    "prompts": deserialize_prompts,
}

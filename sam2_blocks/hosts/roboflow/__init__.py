"""Roboflow Workflows: a plugin of its engine, whose blocks are made from our manifests.

The engine finds it through ``WORKFLOWS_PLUGINS=sam2_blocks.hosts.roboflow`` and reads the names
below. ``sam2/segment@v1`` is ``sam2_blocks/segment@v1`` there, and any other block, such as
``draw/masks@v1``, is ``sam2_blocks/draw_masks@v1``; each answers to its own id as well.

`engine` finds the engine that is installed, `blocks` makes its classes, `values` converts what goes
in and out, and `clicks` reads its labeled points.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.resources import LOCAL_MODELS_SWITCH, Resources
from sam2_blocks.environment import read_switch
from sam2_blocks.hosts.bridge import HostReport, Offer, installed_version, make_offer
from sam2_blocks.hosts.roboflow.blocks import RESERVED, workflow_block, workflow_type
from sam2_blocks.hosts.roboflow.engine import OUR_KINDS, RLE_KIND, Engine, load_engine
from sam2_blocks.hosts.roboflow.values import (
    deserialize_embedding,
    serialize_embedding,
    serialize_masks,
    serialize_rle_masks,
)
from sam2_blocks.kinds import Kind, dump_value, parse_value

DISTRIBUTIONS = ("roboflow-workflows", "inference", "inference-gpu", "inference-cpu")


@cache
def _plugins() -> Plugins:
    return load_plugins()


@cache
def shared_resources() -> Resources:
    """The executors of all workflows in this process."""
    return _plugins().resources(local_models=read_switch(LOCAL_MODELS_SWITCH))


@cache
def _engine() -> Engine:
    return load_engine().with_kinds(_plugins().kinds)


def load_kinds() -> list[Any]:
    """Give the engine the kinds it does not have."""
    return [_engine().kinds[kind.name] for kind in _our_kinds() if kind.name in _engine().kinds]


@cache  # the engine asks at every compilation, and wants the same classes
def load_blocks() -> list[type[Any]]:
    """Give the engine a class for every block that can work there."""
    engine = _engine()
    offer = find_offer(_plugins(), engine.kinds)
    return [workflow_block(manifest, _plugins(), engine) for manifest in offer.blocks.values()]


def find_offer(plugins: Plugins, kinds: Collection[str]) -> Offer:
    """Choose the blocks that can work in an engine.

    Args:
        plugins: where the blocks are.
        kinds: names of the kinds that the engine has.
    """
    return make_offer(plugins, kinds=kinds, name_of=workflow_type, trusted=False, reserved=RESERVED)


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it."""
    return HostReport(
        title="Roboflow Workflows",
        installed=installed_version(*DISTRIBUTIONS),
        how=f"set WORKFLOWS_PLUGINS={__name__}",
        offer=find_offer(plugins, plugins.kinds),
    )


REGISTERED_INITIALIZERS: dict[str, Callable[[], Any]] = {"resources": shared_resources}


def __getattr__(name: str) -> Any:
    """Make what the engine asks for when it loads us, since plugins' kinds are among it."""
    if name == "KINDS_SERIALIZERS":
        return {
            **{kind.name: _serializer(kind) for kind in _our_kinds()},
            "image_embedding": serialize_embedding,
            "instance_segmentation_prediction": serialize_masks,
            RLE_KIND: serialize_rle_masks,
        }
    if name == "KINDS_DESERIALIZERS":
        return {
            **{kind.name: _deserializer(kind) for kind in _our_kinds() if kind.parse},
            "image_embedding": deserialize_embedding,
        }
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _our_kinds() -> list[Kind]:
    """Those of our kinds, plugins' among them, that the engine does not have."""
    theirs = load_engine().kinds
    return [
        kind for name, kind in _plugins().kinds.items() if name in OUR_KINDS or name not in theirs
    ]


def _serializer(kind: Kind) -> Callable[[Any], Any]:
    return lambda value: dump_value(value, [kind])


def _deserializer(kind: Kind) -> Callable[[str, Any], Any]:
    return lambda parameter, value: parse_value(value, [kind])

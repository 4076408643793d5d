"""The engine of Roboflow Workflows, wherever it is installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.kinds import BUILTIN_KINDS, LIST_OF, Kind
from sam2_blocks.language.manifest import Output, Param, Socket

ENGINES = ("roboflow_workflows", "inference.core.workflows")
"""The engine on its own; and inside older releases of ``inference``, newer import the first."""

OUR_KINDS = ("image_embedding", "prompts")
RLE_KIND = "rle_instance_segmentation_prediction"
TENSOR_SWITCH = "ENABLE_TENSOR_DATA_REPRESENTATION"
ALSO_ACCEPTED = {"float": ("float_zero_to_one",), "prompts": ("labeled_points",)}
"""Kinds of the engine that go into ours, too."""


class Engine(NamedTuple):
    """The modules of the engine that we build on, and its kinds by name.

    With ``hands_over_tensors`` it is in the mode where predictions are classes of its own, which
    hold tensors, instead of ``supervision.Detections``.
    """

    base: ModuleType
    types: ModuleType
    block: ModuleType
    utils: ModuleType
    serializers: ModuleType
    kinds: Mapping[str, Any]
    hands_over_tensors: bool = False

    def find_kinds(self, socket: Socket | Param) -> list[Any]:
        """The kinds of a socket, without those that this engine is too old for."""
        taken = {} if isinstance(socket, Output) else ALSO_ACCEPTED
        names = [
            name for kind in socket.kinds for name in (_name_there(kind), *taken.get(kind, ()))
        ]
        names.sort(key=lambda name: name != RLE_KIND)  # serialised by the first that can
        return [self.kinds[name] for name in names if name in self.kinds]

    def with_kinds(self, kinds: Mapping[str, Kind]) -> Engine:
        """The same engine with the kinds of plugins, where it has none of that name."""
        builtin = {kind.name for kind in BUILTIN_KINDS}
        more = {
            name: _their_kind(kind, self.types)
            for name, kind in kinds.items()
            if name not in builtin and name not in self.kinds
        }
        return self._replace(kinds={**self.kinds, **more})


def _name_there(kind: str) -> str:
    """The engine's name of a kind of ours; of lists it knows one kind."""
    return "list_of_values" if kind.startswith(LIST_OF) else kind


@cache
def load_engine() -> Engine:
    """Import the engine: the one that is running already, else the one that is installed.

    Raises:
        MissingExtraError: if neither ``roboflow-workflows`` nor ``inference`` is installed.
    """
    running = [root for root in ENGINES if f"{root}.prototypes.block" in sys.modules]
    installed = (root for root in ENGINES if find_spec(root.partition(".")[0]))
    root = next(iter((*running, *installed)), None)
    if root is None:
        raise MissingExtraError(
            "Roboflow Workflows is not installed; pip install 'sam2-blocks[roboflow]'"
        )
    types = import_module(f"{root}.execution_engine.entities.types")
    theirs = {kind.name: kind for kind in vars(types).values() if isinstance(kind, types.Kind)}
    ours = {kind.name: _their_kind(kind, types) for kind in BUILTIN_KINDS if kind.name in OUR_KINDS}
    return Engine(
        base=import_module(f"{root}.execution_engine.entities.base"),
        types=types,
        block=import_module(f"{root}.prototypes.block"),
        utils=import_module(f"{root}.core_steps.common.utils"),
        serializers=import_module(f"{root}.core_steps.common.serializers"),
        kinds={**theirs, **ours},
        hands_over_tensors=_tensor_mode(root),
    )


def _tensor_mode(root: str) -> bool:
    """Whether a switch of newer engines is on."""
    if find_spec(f"{root}.environment") is None:
        return False
    return bool(getattr(import_module(f"{root}.environment"), TENSOR_SWITCH, False))


def _their_kind(kind: Kind, types: ModuleType) -> Any:
    return types.Kind(
        name=kind.name,
        description=kind.description,
        docs=kind.description,
        serialised_data_type="dict" if kind.name == "image_embedding" else "list",
        internal_data_type=kind.description.partition(":")[0],
    )

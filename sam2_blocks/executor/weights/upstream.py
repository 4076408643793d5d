"""The ``sam2`` package: importing its model code quietly, and building networks from its YAML.

``import sam2`` initialises Hydra for the whole process and breaks applications that use Hydra
themselves. We need none of that: the model code is imported below a stand-in parent module, so
``sam2/__init__.py`` never runs on our behalf, and configurations are read as plain YAML.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import nn

from sam2_blocks.errors import ModelError
from sam2_blocks.forks import ForkSafeLock

_importing = ForkSafeLock()

TARGET = "_target_"
TARGET_PREFIX = "sam2.modeling."
UPSTREAM_INPUT_PX = 512  # of `SAM2Base` where nobody says it
# What the official `build_sam2(apply_postprocessing=True)`, its default, sets in every model.
POSTPROCESSING = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def sam2_folder() -> Path:
    """Return the folder of the installed ``sam2`` package without importing it.

    Raises:
        ModelError: if it is not installed, or is another package of the same name.
    """
    spec = importlib.util.find_spec("sam2")
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    if not locations:
        raise ModelError("the package 'sam2' is not installed. Run: pip install 'sam2>=1.1'")
    folder = Path(locations[0])
    if not (folder / "modeling" / "sam2_base.py").is_file():
        raise ModelError(_unusable(folder, "it has no modeling/sam2_base.py"))
    return folder


def build_network(config: Path, *, input_px: int = 0) -> nn.Module:
    """Build the network a YAML file describes, with freshly initialised weights.

    Args:
        config: laid out like the configurations of the ``sam2`` package: a mapping ``model`` of
            nested ``_target_`` classes and their arguments.
        input_px: side of the square it sees; 0 is what the file says. No weight depends on it.

    Raises:
        ModelError: if the file cannot be read, or names anything outside ``sam2.modeling``.
    """
    arguments = _read_arguments(config)
    if input_px:
        arguments["image_size"] = input_px
    extra = arguments.get("sam_mask_decoder_extra_args") or {}
    arguments["sam_mask_decoder_extra_args"] = {**extra, **POSTPROCESSING}
    try:
        network = _instantiate(arguments, config)
    except (TypeError, AssertionError) as error:
        raise ModelError(f"{config} does not describe a SAM 2 model: {error}") from error
    assert isinstance(network, nn.Module), network
    return network


def own_input_px(config: Path) -> int:
    """Return the side of the square that a YAML file says a network sees.

    Raises:
        ModelError: as `build_network`.
    """
    return int(_read_arguments(config).get("image_size", UPSTREAM_INPUT_PX))


def _read_arguments(config: Path) -> dict[str, Any]:
    try:
        document = YAML(typ="safe").load(config)
    except (OSError, YAMLError) as error:
        raise ModelError(f"cannot read the model configuration {config}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise ModelError(f"{config} is no model configuration: it has no mapping 'model'.")
    arguments: dict[str, Any] = document["model"]
    return arguments


def _instantiate(node: Any, config: Path) -> Any:
    """Turn nested ``_target_`` mappings into objects, innermost first, in the order written."""
    if isinstance(node, list):
        return [_instantiate(item, config) for item in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: _instantiate(value, config) for key, value in node.items() if key != TARGET}
    if TARGET not in node:
        return arguments
    return _find_class(node[TARGET], config)(**arguments)


def _find_class(target: str, config: Path) -> Any:
    module_name, _, class_name = str(target).rpartition(".")
    if not module_name.startswith(TARGET_PREFIX):
        raise ModelError(
            f"{config}: {TARGET} must name a class below {TARGET_PREFIX!r}, got {target!r}."
        )
    found = getattr(_modeling_module(module_name), class_name, None)
    if found is None:
        raise ModelError(f"{config}: there is no class {target!r} in the installed 'sam2'.")
    return found


@functools.cache
def _modeling_module(name: str) -> ModuleType:
    folder = sam2_folder()
    try:
        with _importing.held(), _stand_in_parent(folder):
            return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(_unusable(folder, str(error))) from error


@contextmanager
def _stand_in_parent(folder: Path) -> Iterator[None]:
    """Let ``sam2.modeling`` be imported without running ``sam2/__init__.py``.

    The stand-in leaves when we are done, so the application's own ``import sam2``, before or
    after, does what it always does. The submodules stay: both sides share the same classes.
    """
    if "sam2" in sys.modules:
        yield
        return
    parent = ModuleType("sam2")
    parent.__path__ = [str(folder)]
    sys.modules["sam2"] = parent
    try:
        yield
    finally:
        del sys.modules["sam2"]


def _unusable(folder: Path, reason: str) -> str:
    owners = sorted(set(packages_distributions().get("sam2", []))) or ["no distribution"]
    return (
        f"the package 'sam2' at {folder} (from {', '.join(owners)}) cannot be used: {reason}. "
        "We need the distribution 'sam2' >= 1.1; others, such as RF-SAM-2, install a package of "
        "the same name. Run: pip uninstall RF-SAM-2; pip install --force-reinstall 'sam2>=1.1'"
    )

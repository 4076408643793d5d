"""The checkpoint of SAM 2 that a name means which is in no catalogue. No torch."""

from __future__ import annotations

from pathlib import Path

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.catalogue import find_model, is_of_a_release
from sam2_blocks.executor.weights.hub import fetch_repository
from sam2_blocks.executor.weights.names import HubName, is_hub_name, is_path, read_name
from sam2_blocks.executors import CHECKPOINT_SUFFIXES

PREFERRED = "model.safetensors"


def find_checkpoint(model: str, *, offline: bool | None = None) -> Path:
    """Return the file that a name means, downloading it if it is of the hub.

    Args:
        model: path of a file or a folder, or ``owner/name`` of the hub.
        offline: never download; by default as ``SAM2_BLOCKS_OFFLINE`` says.

    Raises:
        ModelError: if there is none, or more than one to choose from.
    """
    if not is_path(model) and (is_of_a_release(model) or not is_hub_name(model)):
        find_model(model)  # says which name of the catalogue is the nearest
    named = read_name(model)
    if isinstance(named, HubName):
        return _fetch(named, offline=offline)
    return checkpoint_in(named) if named.is_dir() else named


def checkpoint_in(folder: Path) -> Path:
    """Return the checkpoint in a folder: ``model.safetensors``, or else the only one.

    Raises:
        ModelError: if there is none, or more than one.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_SUFFIXES)
    preferred = [path for path in found if path.name == PREFERRED]
    if len(preferred or found) == 1:
        return (preferred or found)[0]
    if not found:
        raise ModelError(
            f"the folder {folder} has no checkpoint: expected {PREFERRED}, or one file that ends "
            f"in {', '.join(CHECKPOINT_SUFFIXES)}."
        )
    names = ", ".join(path.name for path in found[:5])
    raise ModelError(f"the folder {folder} has several checkpoints ({names}). Name one of them.")


def _fetch(name: HubName, *, offline: bool | None) -> Path:
    """Download the preferred file alone, or whatever checkpoint a repository has instead."""
    folder = fetch_repository(name, [PREFERRED], offline=offline)
    if not (folder / PREFERRED).is_file():
        patterns = [f"*{suffix}" for suffix in CHECKPOINT_SUFFIXES]
        folder = fetch_repository(name, patterns, offline=offline)
    return checkpoint_in(folder)

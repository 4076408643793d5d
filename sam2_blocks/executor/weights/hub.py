"""Repositories of the Hugging Face hub, and the cache of its own library on this machine. No torch.

Only plain data is fetched: safetensors, configurations and vocabularies, never code. What is in the
cache is found again without a network; with ``SAM2_BLOCKS_OFFLINE`` nothing else is asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor.weights.names import NO_HUB, HubName
from sam2_blocks.executor.weights.offline import OFFLINE_VARIABLE, is_offline

PLAIN_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def fetch_repository(
    name: HubName, files: Sequence[str] = PLAIN_FILES, *, offline: bool | None = None
) -> Path:
    """Return the folder of a repository, downloading what is not there yet, with a progress bar.

    Args:
        name: the repository and its revision.
        files: patterns of the files that are wanted.
        offline: True never downloads; by default as ``SAM2_BLOCKS_OFFLINE`` says.

    Raises:
        MissingExtraError: if the package ``huggingface_hub`` is missing.
        ModelError: if the repository is not to be had, with the reason.
    """
    hub = _import_hub()
    offline = is_offline() if offline is None else offline
    try:
        folder = hub.snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(files),
            local_files_only=offline,
        )
    except Exception as error:  # its network library, versions of it and files raise many kinds
        raise ModelError(_explain(name, error, offline=offline)) from error
    return Path(folder)


def is_in_cache(repository: str) -> bool:
    """Whether some revision of a repository is on this machine; asks the disk alone."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())


def cached_revision(name: HubName) -> Path | None:
    """Return the folder of a revision that is on this machine; asks the disk alone."""
    folder = hub_cache() / f"models--{name.repository.replace('/', '--')}"
    revision = name.revision or "main"
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


def hub_cache() -> Path:
    """Return the folder where the hub's own library keeps repositories."""
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(NO_HUB) from error
    return huggingface_hub


def _explain(name: HubName, error: Exception, *, offline: bool) -> str:
    """Say what to do about a repository that is not to be had."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{name.repository}"
    if offline:
        return (
            f"the repository {str(name)!r} is not on this machine and downloads are off "
            f"({OFFLINE_VARIABLE} or offline=True). Looked in {hub_cache()}."
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the repository {str(name)!r} is gated: its owner wants to be asked. Accept the terms "
            f"on {page}, and log in with 'hf auth login' or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no repository {name.repository!r}, or it is private. Look at {page}; for "
            "a private one log in with 'hf auth login' or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository {name.repository!r} has no revision {name.revision!r}; see {page}."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"the repository {str(name)!r} is not on this machine, and the hub cannot be reached. "
            "Check the network, or copy its files into a folder and name that."
        )
    reason = str(error).partition("\n")[0] or type(error).__name__
    return f"the repository {str(name)!r} could not be downloaded: {reason}"

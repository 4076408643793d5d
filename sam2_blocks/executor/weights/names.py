"""What the name of a model that is in no catalogue means: a path, or a repository of the hub.

A name is looked up in the catalogue of its family first. Then it is a path if something is there,
and else, if it has the form ``owner/name``, a repository of the Hugging Face hub; a revision may
follow as ``owner/name@revision``. ``./``, ``../``, ``/`` and ``~`` force a path, ``hub:`` the hub.
No torch, and nothing is opened here.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sam2_blocks.errors import ModelError
from sam2_blocks.executors import is_checkpoint

HUB_PREFIX = "hub:"
NO_HUB = (
    "models of the Hugging Face hub need the package 'huggingface_hub'. "
    "Run: pip install 'sam2-blocks[hub]'"
)
_PATH_STARTS = ("./", "../", "/", "~")
_REPOSITORY = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.][\w./-]*))?"
)


class HubName(NamedTuple):
    """A repository of the hub.

    Attributes:
        repository: ``owner/name``.
        revision: branch, tag or commit; the main branch if None.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


def read_name(model: str) -> Path | HubName:
    """Say what a name means that is in no catalogue.

    Args:
        model: without the prefix of its family.

    Raises:
        ModelError: if it is neither a path where something is nor the name of a repository.
    """
    if is_path(model):
        return Path(model).expanduser()
    bare = model.removeprefix(HUB_PREFIX)
    named = _REPOSITORY.fullmatch(bare)
    if named is not None:
        return HubName(named["repository"], named["revision"])
    if bare != model:
        raise ModelError(
            f"{model!r} names no repository of the hub: expected 'hub:owner/name', or "
            "'hub:owner/name@revision'."
        )
    raise ModelError(
        f"there is no model {model!r}: it is in no catalogue, there is no such file or folder, and "
        "it is not 'owner/name' of the hub."
    )


def is_path(model: str) -> bool:
    """Whether a name means a file or folder of this machine, one that is there or must be."""
    if model.startswith(HUB_PREFIX) or not model.strip():  # an empty path is the current folder
        return False
    return model.startswith(_PATH_STARTS) or is_checkpoint(model) or Path(model).exists()


def is_hub_name(model: str) -> bool:
    """Whether a name means a repository of the hub."""
    if is_path(model):
        return False
    return _REPOSITORY.fullmatch(model.removeprefix(HUB_PREFIX)) is not None


def find_problem(model: str) -> str:
    """Say what is wrong with a name that is in no catalogue; empty if nothing is known to be.

    A checkpoint may be on another machine than the one that checks a pipeline.
    """
    if is_checkpoint(model):
        return ""
    try:
        named = read_name(model)
    except ModelError as error:
        return str(error)
    if isinstance(named, Path) and not named.exists():
        return f"there is no file or folder {named}."
    if isinstance(named, HubName) and find_spec("huggingface_hub") is None:
        return NO_HUB
    return ""


def find_folder_problem(model: str) -> str:
    """The same for a model that ``save_pretrained`` of the transformers library wrote."""
    return folder_problem(Path(model).expanduser()) if is_path(model) else find_problem(model)


def folder_problem(folder: Path) -> str:
    """Say why a folder holds no model of the transformers library; empty if it may."""
    wanted = "Expected a folder that save_pretrained() of the transformers library wrote"
    if not folder.exists():
        before, at, revision = str(folder).rpartition("@")
        if at and Path(before).exists():
            return f"revision {revision!r} goes with a repository, and {before} is a folder."
        return f"there is no folder {folder}. {wanted}."
    if not folder.is_dir():
        return f"{folder} is a file. {wanted}."
    if not (folder / "config.json").is_file():
        return f"{folder} has no config.json. {wanted}."
    return ""

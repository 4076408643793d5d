"""Folders of pipelines whose files are blocks: in other pipelines, and in every host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sam2_blocks.engine.hookspecs import hookimpl
from sam2_blocks.errors import PluginError
from sam2_blocks.kinds import Kind
from sam2_blocks.language.composed import as_block
from sam2_blocks.language.manifest import Manifest, iter_yaml_files
from sam2_blocks.language.pipeline import ValueCheck, load_pipeline

SWITCH = "SAM2_BLOCKS_PIPELINES"
"""Folders of pipelines, separated like those of ``PATH``."""

FILE_NAME = re.compile(r"([a-z][a-z0-9_]*)(@v[1-9][0-9]*)?")


@dataclass(frozen=True)
class PipelineFolder:
    """A plugin that is a folder of pipelines."""

    folder: Path

    @hookimpl
    def register_pipelines(self) -> Iterable[Path]:
        """Bring the folder."""
        return [self.folder]


def folders_of_environment() -> list[PipelineFolder]:
    """Plugins for the folders that ``SAM2_BLOCKS_PIPELINES`` names."""
    names = os.environ.get(SWITCH, "").split(os.pathsep)
    return [PipelineFolder(Path(name)) for name in dict.fromkeys(names) if name]


def pipeline_blocks(
    folders: Iterable[Path],
    manifests: Mapping[str, Manifest],
    kinds: Mapping[str, Kind],
    checks: Mapping[str, ValueCheck],
) -> list[Manifest]:
    """Make a block of every pipeline of some folders.

    ``plates.yaml`` becomes ``pipelines/plates@v1``, and ``plates@v2.yaml`` its second version.

    Args:
        folders: with YAML files.
        manifests: blocks that they may use, by id.
        kinds: kinds that exist, by name.
        checks: see `load_pipeline`.

    Raises:
        PluginError: if there is no such folder, or a file's name is none of a block.
        PipelineError: if a pipeline is wrong.
    """
    return [
        as_block(load_pipeline(file, manifests, kinds, checks=checks), _block_id(file))
        for folder in folders
        for file in _files_of(folder)
    ]


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise PluginError(f"{str(folder)!r} is no folder of pipelines.")
    return list(iter_yaml_files(folder))


def _block_id(file: Path) -> str:
    match = FILE_NAME.fullmatch(file.stem)
    if match is None:
        raise PluginError(
            f"{str(file)!r}: a pipeline that is a block is called in small letters, digits and _, "
            "such as plates.yaml or plates@v2.yaml. Rename the file."
        )
    name, version = match.groups()
    return f"pipelines/{name}{version or '@v1'}"

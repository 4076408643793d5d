"""Paths with a picture's names in braces, which blocks that read or write files are given."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from sam2_blocks.errors import did_you_mean
from sam2_blocks.output_files import OutputFiles
from sam2_blocks.values import Image


def path_beside(template: str, image: Image) -> Path:
    """Fill in ``{dir}``, ``{stem}`` and ``{name}`` of the picture's file, and its ``{id}``.

    Raises:
        ValueError: if a placeholder is another.
    """
    file = image.path or Path(image.id)
    return _fill(template, dir=str(file.parent), stem=file.stem, name=file.name, id=image.id)


class FilePerPicture:
    """Names a file in the output folder for each picture of a block, and none for two.

    Args:
        files: those of the run.
    """

    def __init__(self, files: OutputFiles) -> None:
        self._files = files
        self._owners: dict[Path, str] = {}

    def claim(self, template: str, image: Image) -> Path:
        """Fill in ``{id}``, the picture's id as a relative path, its ``{folder}`` and ``{stem}``.

        Raises:
            ValueError: if a placeholder is another, the file is another picture's or another
                step's, or it is not below the output folder.
        """
        own = relative_path(image.id)
        filled = _fill(template, id=str(own), folder=str(own.parent), stem=own.stem)
        path = self._files.claim(filled, self, image.id)
        if path in self._owners:
            raise ValueError(
                f"{path} is the file of another picture, {self._owners[path]!r}; put {{id}} into "
                "'path', or give pictures names of their own"
            )
        self._owners[path] = image.id
        return path


def relative_path(item_id: str) -> PurePosixPath:
    """Make an item's id a relative path that cannot leave the folder it is put below."""
    parts = [part for part in PurePosixPath(item_id).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts)


def _fill(template: str, **values: str) -> Path:
    try:
        return Path(template.format(**values))
    except (KeyError, IndexError, ValueError) as error:
        name = str(error.args[0]) if isinstance(error, KeyError) else ""
        hint = did_you_mean(name, values)
        raise ValueError(f"path {template!r} has a wrong placeholder: {error}.{hint}") from error

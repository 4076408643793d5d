"""Paths with a picture's names in braces, which blocks that read or write files are given."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from sam2_blocks.errors import did_you_mean
from sam2_blocks.values import Image


def path_beside(template: str, image: Image) -> Path:
    """Fill in ``{dir}``, ``{stem}`` and ``{name}`` of the picture's file, and its ``{id}``.

    Raises:
        ValueError: if a placeholder is another.
    """
    file = image.path or Path(image.id)
    return _fill(template, dir=str(file.parent), stem=file.stem, name=file.name, id=image.id)


class PathsBelow:
    """Names a file below a folder for each picture, and none for two.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owners: dict[Path, str] = {}

    def path(self, template: str, image: Image) -> Path:
        """Fill in ``{id}``, the picture's id as a relative path, its ``{folder}`` and ``{stem}``.

        Raises:
            ValueError: if a placeholder is another, or the file is another picture's.
        """
        own = relative_path(image.id)
        filled = _fill(template, id=str(own), folder=str(own.parent), stem=own.stem)
        path = self._folder / filled
        owner = self._owners.setdefault(path, image.id)
        if owner != image.id:
            raise ValueError(
                f"{path} is the file of {owner!r} already; put {{id}} into 'path', or rename the "
                "picture"
            )
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

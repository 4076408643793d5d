"""Files whose paths have a picture's names in braces, for blocks that read or write one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from sam2_blocks.errors import did_you_mean
from sam2_blocks.files.atomic import shorten, write_bytes, write_text
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.values import Image


def path_beside(template: str, image: Image) -> Path:
    """Fill the names of a picture into a path.

    Args:
        template: a path with any of ``{dir}``, ``{stem}`` and ``{name}``, which are of the
            picture's file, ``{id}``, and ``{folder}``, the folder in its id.
        image: the picture.

    Raises:
        ValueError: if a placeholder is another.
    """
    return path_beside_file(template, image.path or Path(image.id), image.id)


def path_beside_file(template: str, file: Path, item_id: str) -> Path:
    """Fill the names of a file, and the id of the item it stands for, into a path.

    Args:
        template: see `path_beside`.
        file: the file.
        item_id: the id.

    Raises:
        ValueError: if a placeholder is another.
    """
    return _fill(
        template,
        dir=str(file.parent),
        stem=stem_of(file.name),
        name=file.name,
        id=item_id,
        folder=str(relative_path(item_id).parent),
    )


class FilePerPicture:
    """Writes a file in the output folder for each picture of a block, and none for two.

    Args:
        files: those of the run.
    """

    def __init__(self, files: OutputFiles) -> None:
        self._files = files
        self._owners: dict[Path, str] = {}

    def write(
        self, item: Any, text_of: Callable[[Any, Path], str]
    ) -> Mapping[str, Any] | Exception:
        """Write the file of one item of a block.

        Args:
            item: with ``image``, and as ``path`` a template, see `put`.
            text_of: makes the content from the item and the folder that the file comes into.

        Returns:
            The block's output ``path``, or why there is no file, see `put`, or why the content
            cannot be made.
        """
        try:
            filled = _fill_for(item.image, item.path)
            text = text_of(item, (self._files.folder / filled).parent)
            path = write_text(self._claim(filled, item.image), text)
        except (OSError, ValueError) as error:
            return error
        return {"path": str(path)}

    def put(self, image: Image, template: str, content: bytes) -> str:
        """Write a file of one picture, and return its path.

        Args:
            image: the picture.
            template: a path, in which ``{id}`` is the picture's id as a relative path, and
                ``{folder}`` and ``{stem}`` are those of the id.
            content: of the file.

        Raises:
            OSError: if it cannot be written.
            ValueError: if a placeholder is another, the file is another picture's or another
                step's, or it is not below the output folder.
        """
        return str(write_bytes(self._claim(_fill_for(image, template), image), content))

    def _claim(self, filled: Path, image: Image) -> Path:
        path = self._files.claim(shorten(filled), self, image.id)
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
    return shorten(PurePosixPath(*parts))


def _fill_for(image: Image, template: str) -> Path:
    own = relative_path(image.id)
    return _fill(template, id=str(own), folder=str(own.parent), stem=stem_of(own.name))


def stem_of(name: str) -> str:
    """A file's name without its suffix; ``a.tif#3``, a frame, is ``a#3``."""
    file, mark, frame = name.rpartition("#")
    if mark and frame.isdecimal() and PurePosixPath(file).suffix:
        return f"{PurePosixPath(file).stem}#{frame}"
    return PurePosixPath(name).stem


def _fill(template: str, **values: str) -> Path:
    """Put values in the place of bare names in braces; ``{{`` and ``}}`` are braces."""
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if name is not None and (form or conversion or name not in values):
                written = f"{name}{f'!{conversion}' if conversion else ''}"
                written += f":{form}" if form else ""
                raise ValueError(f"{written!r}.{did_you_mean(name, values)}")
    except ValueError as error:
        raise ValueError(f"path {template!r} has a wrong placeholder: {error}") from error
    return Path(template.format_map(values))

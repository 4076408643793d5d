"""The pictures a page may open, and the folder that keeps what was clicked in them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image as Pil
from pydantic import ValidationError

from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.files.atomic import shorten, write_text
from sam2_blocks.files.per_picture import relative_path
from sam2_blocks.files.reading import read_text
from sam2_blocks.formats.clicks import ClickedPicture
from sam2_blocks.formats.images import read_image, split_frame
from sam2_blocks.hosts.http.page.brought import holds, keep_brought, list_brought
from sam2_blocks.runs.sources.folder import list_pictures
from sam2_blocks.service.errors import ForbiddenError, ImageRefusedError, UnknownNameError

CLICKS = "clicks"
"""Folder below ``out`` with a JSON file a picture."""

NOT_SAVED = "nothing is saved here: start with --out FOLDER."

SHOWN_BY_BROWSERS = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class PageFolder:
    """What a page reads and writes on this machine.

    Attributes:
        pictures: a picture or a folder of them, searched deeply; None has none to choose from.
        out: where masks are saved and exported to, and pictures that people bring are kept; None
            saves nothing.
        max_pixels: largest picture that is converted for browsers.
    """

    pictures: Path | None = None
    out: Path | None = None
    max_pixels: int = 178_956_970

    def saved(self) -> list[str]:
        """List the pictures of which something is saved."""
        if self.out is None:
            return []
        root = self.out / CLICKS
        files = sorted(root.rglob("*.json")) if root.is_dir() else []
        return [file.relative_to(root).as_posix().removesuffix(".json") for file in files]

    def read(self, name: str) -> tuple[bytes, str]:
        """Return a picture as browsers show it, and its media type.

        A file that they do not show is converted to PNG, which has the same pixels.

        Raises:
            UnknownNameError: if there is no such picture.
            ImageRefusedError: if it cannot be read.
        """
        path = self.path_of(name)
        media_type = SHOWN_BY_BROWSERS.get(path.suffix.lower())
        try:
            if media_type and split_frame(path)[1] is None:
                return path.read_bytes(), media_type
            stream = io.BytesIO()
            image = read_image(path, max_pixels=self.max_pixels)
            Pil.fromarray(image.pixels).save(stream, "PNG", compress_level=1)
        except (ImageError, OSError) as error:
            raise ImageRefusedError(f"{name}: cannot be read ({error}).") from error
        return stream.getvalue(), "image/png"

    def path_of(self, name: str) -> Path:
        """Return the file of a picture that is listed; no other file can be named.

        Raises:
            UnknownNameError: if it is not listed.
        """
        try:
            return self.paths()[name]
        except KeyError:
            raise UnknownNameError(f"there is no picture {name!r} in the folder.") from None

    def load(self, name: str) -> ClickedPicture | None:
        """Return what is saved of a picture, if anything.

        Raises:
            ForbiddenError: if the name leads out of the folder.
            UsageError: if the file is not as it was saved.
        """
        path = self._place_of(name)
        if path is None or not path.is_file():
            return None
        try:
            found = ClickedPicture.model_validate_json(read_text(path))
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise UsageError(f"{path}: is not as it was saved ({reason}). Move it away.") from error
        return found if found.file_name == name else None  # its name was shortened to the same

    def save(self, picture: ClickedPicture) -> Path:
        """Write what was clicked in a picture; the file is whole or not there.

        Raises:
            ForbiddenError: if nothing is saved here, or the name leads out of the folder.
            OSError: if it cannot be written.
        """
        path = self._place_of(picture.file_name)
        if path is None:
            raise ForbiddenError(NOT_SAVED)
        return write_text(path, picture.model_dump_json(indent=1, exclude_none=True) + "\n")

    def keep(self, name: str, content: bytes) -> str:
        """Keep a picture that somebody brings.

        Args:
            name: as its file is called.
            content: the encoded picture.

        Returns:
            The name it is listed under. What is in the folder already, with that name and content,
            is not kept twice, so that what was saved of it is there again.

        Raises:
            ForbiddenError: if nothing is saved here.
            ImageRefusedError: if it is no picture that can be read.
        """
        if self.out is None:
            raise ForbiddenError(NOT_SAVED)
        for known, path in self.paths().items():
            if PurePosixPath(known).name == name and holds(path, content):
                return known
        kept = keep_brought(self.out, name, content, max_pixels=self.max_pixels)
        return kept if kept in self.paths() else f"{kept}#0"  # the first of several frames

    def _place_of(self, name: str) -> Path | None:
        if str(relative_path(name)) != name or "\\" in name or "\0" in name:
            raise ForbiddenError(f"the name {name!r} leads out of the folder.")
        if self.out is None:
            return None
        place = self.out / CLICKS / shorten(Path(f"{name}.json"))
        if not place.resolve().is_relative_to(self.out.resolve()):
            raise ForbiddenError(f"the name {name!r} leads out of the folder.")  # by a link
        return place

    def paths(self) -> Mapping[str, Path]:
        """Return the pictures: files by name, in natural order, then what people brought."""
        brought = {} if self.out is None else list_brought(self.out)
        found = self._listed()
        return {**found, **{name: path for name, path in brought.items() if name not in found}}

    def _listed(self) -> dict[str, Path]:
        if self.pictures is None:
            return {}
        try:
            return list_pictures([str(self.pictures)], self.out)
        except UsageError:  # an empty folder may get pictures later
            if self.pictures.is_dir():
                return {}
            raise

    def checked(self) -> PageFolder:
        """Return this folder with absolute paths.

        Raises:
            UsageError: if the pictures are not there.
        """
        absolute = replace(
            self,
            pictures=None if self.pictures is None else self.pictures.absolute(),
            out=None if self.out is None else self.out.absolute(),
        )
        absolute.paths()
        return absolute

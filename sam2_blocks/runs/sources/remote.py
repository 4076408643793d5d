"""URLs of pictures: one picture of the web, and files, folders and patterns that fsspec reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sam2_blocks.clock import stage
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.runs.sources.addresses import (
    decode_picture,
    has_wildcards,
    is_remote,
    is_web,
    open_system,
    with_retries,
)
from sam2_blocks.runs.sources.folder import natural_key, picture_suffixes
from sam2_blocks.runs.sources.lists import picture_item
from sam2_blocks.values import Image

FACTS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "last_modified", "created", "size")
"""What file systems call that which changes with a file."""


class WebPicture:
    """One picture of the web, called like its file. It is taken not to change.

    Args:
        url: ``http`` or ``https``; fetched with the guards of the service.
        request: what it is for.
    """

    alone = True
    notes = ()
    total = 1

    def __init__(self, url: str, request: RunRequest) -> None:
        self.identity = url
        self._input = request.image_input  # raises where there is none
        self._request = request

    def items(self) -> Iterator[Item]:
        """List the picture; it is fetched when its batch comes."""
        name = PurePosixPath(unquote(urlsplit(self.identity).path)).name or "picture"
        yield picture_item(name, self.identity, self._request)


class RemotePictures:
    """Pictures in a file system that fsspec knows, listed folder by folder.

    An id is the path below the folder, or below the part of a pattern without wildcards.

    Args:
        url: a file, a folder (searched deeply) or a pattern.
        request: what they are for.

    Attributes:
        identity: the URL; see `Source`.

    Raises:
        MissingExtraError: if a package for this kind of URL is missing.
        UsageError: if there is nothing.
    """

    notes = ()
    total = None

    def __init__(self, url: str, request: RunRequest) -> None:
        self.identity = url
        self._input = request.image_input
        self._request = request
        self._system, self._path = open_system(url)
        self._is_pattern = has_wildcards(self._path)
        try:
            self.alone = not self._is_pattern and bool(self._ask(self._system.isfile, self._path))
            first = next(self._files(), None)
        except FileNotFoundError:
            first = None
        except Exception as error:  # each kind of URL has errors of its own
            raise UsageError(f"{url}: cannot be listed: {error}") from error
        if first is None:
            raise UsageError(f"{url}: no such file, folder or match with a picture. Check the URL.")

    def items(self) -> Iterator[Item]:
        """List the pictures; each is read when its batch comes."""
        root = self._root()
        for path, facts in self._files():
            name = PurePosixPath(path).name if self.alone else path.removeprefix(root).lstrip("/")
            read = functools.partial(self._read, path, name)
            yield Item(name, {self._input: read}, _stamp(facts), source=self._url_of(path))

    def _url_of(self, path: str) -> str:
        """The URL of one picture, with the archive that it is in."""
        links = self.identity.split("::")
        names_path = next((n for n, link in enumerate(links) if "://" in link), len(links))
        return "::".join([str(self._system.unstrip_protocol(path)), *links[names_path + 1 :]])

    def _files(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Paths, and what the file system says of each."""
        if self.alone:
            yield self._path, self._ask(self._system.info, self._path)
        elif self._is_pattern:
            found = self._ask(functools.partial(self._system.glob, detail=True), self._path)
            for path in sorted(found, key=lambda path: natural_key(PurePosixPath(path))):
                if found[path]["type"] == "file":
                    yield path, found[path]
        else:
            yield from self._search(self._path)

    def _search(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Pictures of a folder, then those of the folders in it, in natural order."""
        entries = self._ask(functools.partial(self._system.ls, detail=True), folder)
        entries = [one for one in entries if one["name"].strip("/") != folder.strip("/")]
        entries.sort(key=lambda one: natural_key(PurePosixPath(one["name"])))
        for entry in entries:
            suffix = PurePosixPath(entry["name"]).suffix.lower()
            if entry["type"] == "file" and suffix in picture_suffixes():
                yield entry["name"], entry
        for entry in entries:
            if entry["type"] == "directory" and PurePosixPath(entry["name"]).name[:1] != ".":
                yield from self._search(entry["name"])

    def _root(self) -> str:
        if not self._is_pattern:
            return self._path
        parts = self._path.split("/")
        plain = next(n for n, part in enumerate(parts) if has_wildcards(part))
        return "/".join(parts[:plain])

    def _read(self, path: str, name: str) -> Image:
        try:
            with stage("read"):
                content = self._ask(self._system.cat_file, path)
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {error}.") from error
        return decode_picture(content, name, self._request)

    @staticmethod
    def _ask(call: Any, path: str) -> Any:
        return with_retries(lambda: call(path))


def open_remote(text: str, request: RunRequest) -> WebPicture | RemotePictures | None:
    """Open pictures at a URL, if a text is one; see `SourceFactory`."""
    if not is_remote(text):
        return None
    return WebPicture(text, request) if is_web(text) else RemotePictures(text, request)


def _stamp(facts: Mapping[str, Any]) -> str:
    said = [str(facts[name]) for name in FACTS if facts.get(name) not in (None, "")]
    return " ".join(said) or "url"

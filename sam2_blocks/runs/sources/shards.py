"""WebDataset shards, which are tar files → items: the files of one key are one item."""

from __future__ import annotations

import functools
import itertools
import json
import re
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from sam2_blocks.clock import stage
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import FileWarning, ImageError, UsageError
from sam2_blocks.runs.sources.addresses import (
    absolute,
    decode_picture,
    has_wildcards,
    is_remote,
    open_binary,
    open_system,
    stamp_of,
    suffix_of,
)
from sam2_blocks.runs.sources.folder import each_once, natural_key, picture_suffixes
from sam2_blocks.values import Image

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class _Sample:
    """Files with one key: where each begins in the tar, and how long it is, by its ending."""

    key: str
    files: dict[str, tuple[int, int]] = field(default_factory=dict)


class TarShards:
    """The samples of WebDataset shards, each an item called ``shard/key``.

    Files next to each other that are called alike up to the first dot are a sample. Its picture
    goes to the pipeline's picture input; a file ``key.NAME.json``, or an entry ``NAME`` of
    ``key.json``, goes to the input ``NAME``. Shards are read from front to back to be listed; what
    is in them is read when its batch comes.

    Args:
        text: a path or URL that ends in ``.tar``, also a pattern, or ``shard-{000..131}.tar``.
        request: what they are for.

    Attributes:
        identity: the text, absolute; see `Source`.

    Raises:
        UsageError: if there is none, or two shards are called alike.
        PipelineError: if the pipeline has not exactly one input that pictures can go to.
    """

    alone = False
    total = None
    notes: Sequence[str] = ()

    def __init__(self, text: str, request: RunRequest) -> None:
        self.identity = absolute(text)
        self._input = request.image_input
        self._others = [name for name in request.pipeline.inputs if name != self._input]
        self._required = [
            name
            for name in self._others
            if request.pipeline.inputs[name].required and name not in request.settings
        ]
        self._request = request
        self._shards = [found for each in expand_range(text) for found in _matches(each)]
        if not self._shards:
            raise UsageError(f"{text}: no such shard. Check the path.")
        names = [_shard_name(shard) for shard in self._shards]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{text}: two shards are called {twice!r}; name them apart.")

    def items(self) -> Iterator[Item]:
        """List the samples of one shard after another."""
        for shard in self._shards:
            stamp = stamp_of(shard)
            for sample in _samples(shard):
                yield self._item(shard, sample, stamp)

    def _item(self, shard: str, sample: _Sample, stamp: str) -> Item:
        name = f"{_shard_name(shard)}/{sample.key}"
        picture = next((e for e in sample.files if f".{e}".lower() in picture_suffixes()), None)
        inputs: dict[str, Any] = {}
        if picture is None:
            found = ", ".join(sample.files)
            inputs[self._input] = functools.partial(_lacks_picture, sample.key, found)
        else:
            where = (shard, *sample.files[picture])
            inputs[self._input] = functools.partial(_picture, where, name, self._request)
        for other in self._others:
            if (ending := f"{other}.json") in sample.files:
                inputs[other] = functools.partial(_plain, (shard, *sample.files[ending]))
        if "json" in sample.files:
            inputs = {**self._entries(shard, sample), **inputs}
        for lacking in self._required:
            if lacking not in inputs:
                inputs[lacking] = functools.partial(_refuse, _lacks(sample, lacking))
        place = "-".join(map(str, next(iter(sample.files.values()))))
        return Item(name, inputs, f"{stamp} {place}", source=shard)

    def _entries(self, shard: str, sample: _Sample) -> dict[str, Any]:
        """Inputs out of ``key.json``, which must be read to know what is in it."""
        try:
            given = _plain((shard, *sample.files["json"]))
        except ValueError as error:
            message = str(error)
            return {name: functools.partial(_refuse, message) for name in self._others}
        if not isinstance(given, dict):
            return {}
        return {name: given[name] for name in self._others if given.get(name) is not None}


def open_shards(text: str, request: RunRequest) -> TarShards | None:
    """Open WebDataset shards, if a text names some; see `SourceFactory`."""
    return TarShards(text, request) if suffix_of(text) == ".tar" and "::" not in text else None


def expand_range(text: str) -> list[str]:
    """Write out ``{000..131}``, zeros included; a text without is itself."""
    found = RANGE.search(text)
    if not found:
        return [text]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    return [
        whole
        for number in numbers
        for whole in expand_range(
            f"{text[: found.start()]}{number:0{len(first)}d}{text[found.end() :]}"
        )
    ]


def _matches(text: str) -> list[str]:
    if not has_wildcards(text):
        return [text]
    if is_remote(text):
        system, path = open_system(text)
        found = [str(system.unstrip_protocol(one)) for one in system.glob(path)]
    else:
        found = each_once(glob(text, recursive=True))
    return sorted(found, key=lambda path: natural_key(PurePosixPath(path)))


def _shard_name(shard: str) -> str:
    return PurePosixPath(shard).name.removesuffix(".tar")


def _samples(shard: str) -> Iterator[_Sample]:
    for key, members in itertools.groupby(_members(shard), key=lambda member: member[0]):
        yield _Sample(key, {ending: place for _, ending, place in members})


def _members(shard: str) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Key, ending and place of each file in a shard."""
    try:
        with open_binary(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                base, dot, ending = path.name.partition(".")
                if member.isfile() and base and dot:
                    key = path.with_name(base).as_posix()
                    yield key, ending, (member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            _check_end(shard, file, archive.offset)
    except tarfile.TarError as error:
        raise UsageError(
            f"{shard}: is no whole tar file: {error}. Fetch it again, or leave it out."
        ) from error


def _check_end(shard: str, file: BinaryIO, place: int) -> None:
    """Say that a tar does not end where its last file does, which `tarfile` takes for its end."""
    file.seek(place)
    block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):
        return
    if block:
        raise tarfile.TarError(f"what begins at byte {place} is no file in it")
    warnings.warn(
        f"{shard}: has no mark at its end, so perhaps not all of its files; was it cut short?",
        FileWarning,
        stacklevel=2,
    )


@stage("read")
def _read(where: tuple[str, int, int]) -> bytes:
    shard, start, size = where
    with open_binary(shard) as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise ImageError(f"{shard}: is cut short.")
    return content


def _picture(where: tuple[str, int, int], name: str, request: RunRequest) -> Image:
    return decode_picture(_read(where), name, request)


def _plain(where: tuple[str, int, int]) -> Any:
    try:
        return json.loads(_read(where))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where[0]}: a file in it is no JSON: {error}") from error


def _lacks(sample: _Sample, name: str) -> str:
    found = ", ".join(sample.files)
    return f"{sample.key}: has no file {name}.json, nor {name!r} in one of .json, only {found}."


def _lacks_picture(key: str, found: str) -> Image:
    raise ImageError(f"{key}: has no picture, only {found}.")


def _refuse(message: str) -> Any:
    raise ValueError(message)

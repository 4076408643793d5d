"""Shards of a run: which items each has, and the parts that are finished.

A shard's files are called after it. ``part-1-of-2-00000.parquet`` holds rows,
``errors-1-of-2-00000.parquet`` why others failed, and ``manifest-1-of-2.json`` says which of these
count: a part is there before the manifest names it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from sam2_blocks.engine.intake import name_failures
from sam2_blocks.engine.places import Shard, Source
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.stores import Store

MANIFEST = re.compile(r"manifest-(\d+)-of-(\d+)\.json")


class ShardOf:
    """The items of one shard: every n-th, but all of a group together.

    Args:
        source: of all shards.
        shard: which.
    """

    alone = False

    def __init__(self, source: Source, shard: Shard) -> None:
        self._source = source
        self._shard = shard

    @property
    def identity(self) -> str | None:
        """That of the whole source; see `Source`."""
        return self._source.identity

    @property
    def total(self) -> int | None:
        """Number of items; None if it is not known, or they are in groups."""
        total = self._source.total
        if total is None or any(item.group for item in islice(self._source.items(), 1)):
            return None
        return len(range(self._shard.number - 1, total, self._shard.count))

    @property
    def notes(self) -> list[str]:
        """Those of the source."""
        return list(self._source.notes)

    def items(self) -> Iterator[Item]:
        """List the items, each with its place among those of all shards."""
        unit, last = -1, ""
        for place, item in enumerate(name_failures(self._source.items())):
            unit += not item.group or item.group != last
            last = item.group
            if unit % self._shard.count == self._shard.number - 1:
                yield replace(item, place=place)


class Part(BaseModel):
    """One finished part.

    Attributes:
        file: its name.
        rows: in it.
        size: in bytes; another one is not whole.
        errors: whether its rows are failures.
    """

    file: str
    rows: int
    size: int
    errors: bool = False


class Manifest(BaseModel):
    """What a shard has finished.

    Attributes:
        run: what ran; parts of different runs are not mixed.
        outputs: those with detections, in the pipeline's order.
        writer: the run that writes now.
        complete: whether all items of the shard were run.
        parts: in the order they were written.
        categories: of the COCO file that the items are from.
        shared: files for all items that blocks wrote, each with the class of its block.
    """

    run: dict[str, Any]
    outputs: list[str] = []
    writer: str = ""
    complete: bool = False
    parts: list[Part] = []
    categories: list[dict[str, Any]] = []
    shared: dict[str, str] = {}


class ShardFiles:
    """The files of one shard in a store, and its manifest.

    Args:
        store: where they are.
        shard: which.
    """

    def __init__(self, store: Store, shard: Shard) -> None:
        self.store = store
        self.shard = shard
        self.manifest: Manifest | None = None
        self._name = f"manifest-{shard.name}.json"
        self._next = 0

    @property
    def current(self) -> Manifest:
        """The manifest of this run, after `take`."""
        if self.manifest is None:
            raise RuntimeError("take() comes first")
        return self.manifest

    def earlier(self) -> Manifest | None:
        """What an earlier run of this shard finished.

        Raises:
            UsageError: if the folder holds a run of another number of shards.
        """
        manifests = read_manifests(self.store)
        for other in manifests:
            if other.count != self.shard.count:
                resumed = f"--shard i/{other.count} --resume" if other.count > 1 else "--resume"
                raise UsageError(
                    f"{self.store.address}: holds a run of {other.count} shards, this is one of "
                    f"{self.shard.count}. Go on with {resumed}, choose another --out, or delete "
                    "that folder first."
                )
        return manifests.get(self.shard)

    def take(self, manifest: Manifest) -> None:
        """Begin to write, in place of whoever did before, and remove what does not count."""
        self._next = 1 + max((_number_of(part.file) for part in manifest.parts), default=-1)
        self.manifest = manifest.model_copy(
            update={"writer": secrets.token_hex(8), "complete": False}
        )
        self._write()
        counting = {part.file for part in manifest.parts}
        own = re.compile(rf"(part|errors)-{re.escape(self.shard.name)}-\d+\.parquet")
        for name in self.store.sizes():
            if own.fullmatch(name) and name not in counting:
                self.store.delete(name)

    def add(self, content: bytes, rows: int, *, errors: bool = False) -> Part:
        """Write a part, which counts once `save` is called.

        Args:
            content: of the Parquet file.
            rows: how many it has.
            errors: whether they are of items that failed.

        Raises:
            OSError: if it cannot be written.
        """
        sort = "errors" if errors else "part"
        name = f"{sort}-{self.shard.name}-{self._next:05}.parquet"
        self._next += 1
        self.store.write(name, content)
        part = Part(file=name, rows=rows, size=len(content), errors=errors)
        self.current.parts.append(part)
        return part

    def save(self) -> None:
        """Write the manifest.

        Raises:
            UsageError: if another run has taken over.
            OSError: if it cannot be written.
        """
        there = _parse(self.store.read(self._name), self._name)
        if there is not None and there.writer != self.current.writer:
            raise UsageError(
                f"{self.store.address}: another run of the shard {self.shard.name} began to write "
                "there. Let one of them end; --resume finds what is finished."
            )
        self._write()

    def _write(self) -> None:
        # Without an indent, which takes ten times as long where there are thousands of parts.
        self.store.write(self._name, json.dumps(self.current.model_dump()).encode() + b"\n")


def read_manifests(store: Store) -> Mapping[Shard, Manifest]:
    """Read the manifests of all shards in a store, by shard.

    Raises:
        UsageError: if one is none.
    """
    found: dict[Shard, Manifest] = {}
    for name in sorted(store.sizes()):
        match = MANIFEST.fullmatch(name)
        manifest = _parse(store.read(name), f"{store.address}/{name}") if match else None
        if match and manifest:
            found[Shard(int(match[1]), int(match[2]))] = manifest
    return dict(sorted(found.items(), key=lambda pair: pair[0].number))


def _parse(content: bytes | None, where: str) -> Manifest | None:
    if content is None:
        return None
    try:
        return Manifest.model_validate(json.loads(content))
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{where}: is no manifest of a shard; delete it ({error}).") from error


def _number_of(file: str) -> int:
    return int(file.removesuffix(".parquet").rpartition("-")[2])

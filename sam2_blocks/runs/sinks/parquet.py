"""Results of a run → parts of a Parquet table, one row an item, typed."""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import copy_context
from dataclasses import asdict, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from sam2_blocks.clock import stage
from sam2_blocks.engine.places import RunRequest, Shard, Source
from sam2_blocks.engine.records import ErrorRecord, ItemResult
from sam2_blocks.errors import UsageError, as_error, message_of
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.files.reading import FileStamps
from sam2_blocks.formats.coco_boxes import SOURCE
from sam2_blocks.formats.columns import DETECTIONS, Column, find_column, whole_number
from sam2_blocks.formats.parquet import cell_to_text, load_pyarrow, open_parquet, text_to_cell
from sam2_blocks.runs.journal import check_resumable, describe_run
from sam2_blocks.runs.shards import Manifest, Part, ShardFiles, read_manifests
from sam2_blocks.runs.sources.addresses import seen_from
from sam2_blocks.runs.stores import LocalStore, Store, open_store

PART_ROWS = 1000
PART_BYTES = 2**25
PART_S = 60.0
"""A part ends at so many rows, about so many bytes, or after so long, whatever comes first."""

OURS = ("id", "source", "image_hw", "coco_image_id", "place", "stamp", "reads")
"""Columns beside the outputs: the item's name, where it is from (a relative path is so to the
folder of the parts), the picture's height and width, its id in the COCO file it is from, its place
among all items, what changes when it changes, and the files it was made from besides, each with its
own."""


class ParquetSink:
    """Writes results as parts of a table, each whole or not there, in any folder or store.

    Failed items are in parts of their own, ``errors-…``, and are run again by ``--resume``; all
    other items are in exactly one row. A part is encoded and written beside the run.

    Args:
        request: whose outputs are written, and where.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        UsageError: if an output is called like a column of ours, or a step writes files and the
            place is no folder of this machine.
    """

    def __init__(self, request: RunRequest) -> None:
        self.failed: list[ErrorRecord] = []
        self.shard = request.shard or Shard()
        self._request = request
        self._columns = _find_columns(request)
        self._store = open_store(request.out)
        self._parts = ShardFiles(self._store, self.shard)
        self._rows: list[dict[str, Any]] = []
        self._failures: list[dict[str, Any]] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "sam2-blocks-writer")
        self._behind: Future[None] | None = None
        self._files = OutputFiles(Path())
        _check_writing(request, self._store)

    @property
    def files(self) -> OutputFiles:
        """Files that blocks write, in this folder."""
        return self._files

    @property
    def notes(self) -> list[str]:
        """Outputs whose kind has no type in a table, such as embeddings and mappings."""
        return [
            f"output {name!r} has no type in a table and is not written"
            for name, column in self._columns.items()
            if column is None
        ]

    @property
    def flight_note(self) -> tuple[Store, str]:
        """Where it is noted what is under way; see `Flight`."""
        return self._store, f".flying-{self.shard.name}.json"

    def begin(self, source: Source) -> Collection[str]:
        """Take the place for this run of the shard, and see what is finished; see `Sink`."""
        request = self._request
        if request.resume:
            check_resumable(request.pipeline)
            if source.identity is None:
                raise UsageError(
                    "cannot resume: nobody can tell whether these inputs are those of the earlier "
                    "run. Give paths, or leave out resume."
                )
        self._store.lock(f".lock-{self.shard.name}")
        try:
            return self._begin(source)
        except BaseException:
            self._store.unlock()
            raise

    @stage("write")
    def write(self, result: ItemResult) -> None:
        """Add one row; its part is written when it is full. See `Sink`."""
        if result.errors or not self._add_row(result):
            self._add_failure(result)
        full = len(self._rows) + len(self._failures) >= PART_ROWS
        if full or self._bytes >= PART_BYTES or time.monotonic() - self._since >= PART_S:
            self._flush()

    def end(self, *, complete: bool) -> None:
        """Write what is left, and that the shard is complete; see `Sink`."""
        try:
            with nullcontext() if complete else suppress(OSError):
                self._flush()
                self._wait()
                self._parts.current.complete = complete
                self._parts.save()
        finally:
            try:  # who does not want to wait leaves no lock behind either
                self._writer.shutdown()
            finally:
                self._store.unlock()

    def _begin(self, source: Source) -> Collection[str]:
        run = describe_run(self._request, source.identity)
        self._check_others(run)
        found = self._parts.earlier()
        _check_same(self._store.address, found, run, resume=self._request.resume)
        kept = found if found is not None and self._request.resume else None
        names = [name for name, column in self._columns.items() if column]
        kinds = self._request.pipeline.kinds_of
        outputs = [n for n in names if DETECTIONS.intersection(kinds(self._selector(n)))]
        manifest = Manifest(run=run, outputs=outputs)
        if kept is not None:
            manifest.shared = kept.shared
            manifest.categories = kept.categories
            sizes = self._store.sizes()
            manifest.parts = [p for p in kept.parts if not p.errors and sizes.get(p.file) == p.size]
        self._parts.take(manifest)
        done, order = self._finished(source) if kept is not None else ((), {})
        folder = Path(self._store.address)
        self._files = OutputFiles(
            folder,
            kept=dict.fromkeys(done, ()),
            shared_before={folder / name: block for name, block in manifest.shared.items()},
            order=order,
            shard=self.shard.name if self.shard.count > 1 else "",
        )
        self._files.keeps_reads = True
        return done

    def _check_others(self, run: Mapping[str, Any]) -> None:
        """Shards of one folder are of one run."""
        for shard, manifest in read_manifests(self._store).items():
            if shard != self.shard and shard.count == self.shard.count and manifest.run != run:
                differing = [key for key, value in run.items() if manifest.run.get(key) != value]
                raise UsageError(
                    f"{self._store.address}: the shard {shard.name} is of another run: "
                    f"{' and '.join(differing)} differ. Choose another --out."
                )

    def _finished(self, source: Source) -> tuple[Collection[str], Mapping[str, int]]:
        """Items with a row that is still true; rows of others are taken out of their parts."""
        items = {
            item.id: replace(item, inputs={}, place=place if item.place is None else item.place)
            for place, item in enumerate(source.items())
        }
        rows = {part.file: self._noted(part) for part in self._parts.current.parts}
        stamps = FileStamps()
        done = {
            name
            for noted in rows.values()
            for name, stamp, reads in noted
            if stamp and name in items and items[name].stamp == stamp
            if stamps.are(reads)
        }
        broken = {item.group for item in items.values() if item.group and item.id not in done}
        done -= {item.id for item in items.values() if item.group in broken}
        for part in list(self._parts.current.parts):
            true = [name in done for name, _, _ in rows[part.file]]
            if not all(true):
                self._rewrite(part, true)
        return done, {item.id: item.place or 0 for item in items.values()}

    def _noted(self, part: Part) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Id and stamp of each row of a part, and what was read for it, with stamps."""
        with self._store.open(part.file) as file:
            table = open_parquet(file, part.file).read(columns=["id", "stamp", "reads"])
        ids, stamps = (map(cell_to_text, table.column(n).to_pylist()) for n in ("id", "stamp"))
        reads = (
            [(cell_to_text(one["path"]), one["stamp"]) for one in row]
            for row in table.column("reads").to_pylist()
        )
        return list(zip(ids, stamps, reads, strict=True))

    def _rewrite(self, part: Part, kept: Sequence[bool]) -> None:
        with self._store.open(part.file) as file:
            table = open_parquet(file, part.file).read()
        table = table.filter(load_pyarrow().array(kept))
        if table.num_rows:
            self._parts.add(_encode(table), table.num_rows)
        self._parts.current.parts.remove(part)
        self._parts.save()
        self._store.delete(part.file)

    def _selector(self, name: str) -> Any:
        return self._request.pipeline.outputs[name]

    def _add_row(self, result: ItemResult) -> bool:
        """Whether all outputs could be made cells; if not, it is said in `failed`."""
        row = self._facts(result)
        row["image_hw"] = None if result.image_hw is None else list(result.image_hw)
        row["coco_image_id"] = self._take_source(result)
        read = self._files.read_for(result.id)
        row["reads"] = [{"path": text_to_cell(path), "stamp": read[path]} for path in read]
        try:
            for name, column in self._columns.items():
                if column is not None:
                    value = result.outputs.get(name)  # missing after a step that was skipped
                    row[name] = None if value is None else column.cell(value)
        except BaseException as error:  # a plugin's value; the other items go on
            cause = as_error(error)
            message = f"cannot be written: {message_of(cause)}"
            failure = ErrorRecord(result.id, "outputs", "", message, type(cause).__name__)
            self.failed.append(failure)
            return False
        self._bytes += _weight(row)
        self._rows.append(row)
        return True

    def _facts(self, result: ItemResult) -> dict[str, Any]:
        item = result.item
        if item is None:
            raise RuntimeError("results of a run know their items")
        source = seen_from(self._store.address, item.source)
        texts = {"id": result.id, "source": source, "stamp": item.stamp}
        return {**{name: text_to_cell(text) for name, text in texts.items()}, "place": item.place}

    def _take_source(self, result: ItemResult) -> int | None:
        """The picture's id in the COCO file that its boxes are from; its categories are kept."""
        described = (
            getattr(value, "metadata", {}).get(SOURCE) for value in result.outputs.values()
        )
        source = next(filter(None, described), None)
        if source is None:
            return None
        known = self._parts.current.categories
        known += [dict(row) for row in source["categories"] if row not in known]
        return whole_number(source["image_id"])

    def _add_failure(self, result: ItemResult) -> None:
        errors = result.errors or (self.failed[-1],)
        self._failures.append({**self._facts(result), "errors": [_said(error) for error in errors]})

    def _flush(self) -> None:
        """Give what is held to the writer, when it is ready with what it had."""
        self._wait()
        rows, failures = self._rows, self._failures
        self._rows, self._failures, self._bytes = [], [], 0
        self._since = time.monotonic()
        for found in (rows, failures):  # those that were held back are late
            found.sort(key=itemgetter("place"))
        if rows or failures:
            self._behind = self._writer.submit(
                copy_context().run, self._write_parts, rows, failures
            )

    def _wait(self) -> None:
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.result()

    @stage("write")
    def _write_parts(self, rows: list[dict[str, Any]], failures: list[dict[str, Any]]) -> None:
        arrow = load_pyarrow()
        folder = Path(self._store.address).resolve()
        shared = {
            path.resolve().relative_to(folder).as_posix(): block
            for path, block in self._files.of_all().items()
        }
        self._parts.current.shared |= shared
        for found, schema, errors in (
            (rows, self._schema(), False),
            (failures, _error_schema(), True),
        ):
            if found:
                table = arrow.Table.from_pylist(found, schema=schema)
                self._parts.add(_encode(table), len(found), errors=errors)
        self._parts.save()

    def _schema(self) -> Any:
        arrow = load_pyarrow()
        columns = [(name, column.type) for name, column in self._columns.items() if column]
        ours = [*_fact_fields(), ("image_hw", arrow.list_(arrow.int64()))]
        ours.append(("coco_image_id", arrow.int64()))
        # No map: `datasets` of Hugging Face has none.
        read = arrow.struct([("path", arrow.string()), ("stamp", arrow.string())])
        ours.append(("reads", arrow.list_(read)))
        return arrow.schema([*ours, *columns])


def _said(error: ErrorRecord) -> dict[str, Any]:
    """What a row of failures says of one, without the item."""
    found = asdict(error)
    del found["item"]
    return {k: text_to_cell(v) if isinstance(v, str) else v for k, v in found.items()}


def _fact_fields() -> list[tuple[str, Any]]:
    arrow = load_pyarrow()
    text = arrow.string()
    return [("id", text), ("source", text), ("place", arrow.int64()), ("stamp", text)]


def _error_schema() -> Any:
    arrow = load_pyarrow()
    names = ("step", "block", "message", "cause")
    fields = [*((name, arrow.string()) for name in names), ("index", arrow.int64())]
    error = arrow.struct(fields)
    return arrow.schema([*_fact_fields(), ("errors", arrow.list_(error))])


def _encode(table: Any) -> bytes:
    stream = io.BytesIO()
    load_pyarrow().parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _weight(value: Any) -> int:
    """About the bytes of a cell."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_weight, value.values()))
    return sum(map(_weight, value)) if isinstance(value, list) else 8


def _find_columns(request: RunRequest) -> dict[str, Column | None]:
    load_pyarrow()
    pipeline = request.pipeline
    for name in pipeline.outputs:
        if name in (*OURS, "errors"):
            raise UsageError(
                f"{pipeline.source}: no output may be called {name!r}, because the table has a "
                "column of that name; give it another one."
            )
    return {
        name: find_column(pipeline.kinds_of(selector))
        for name, selector in pipeline.outputs.items()
    }


def _check_writing(request: RunRequest, store: Any) -> None:
    writing = [s for s in request.pipeline.steps if s.manifest.file_access == "write"]
    if writing and not isinstance(store, LocalStore):
        raise UsageError(
            f"{store.address}: step {writing[0].id!r} writes files, which goes to folders of this "
            "machine alone. Leave the step out, and merge the parts afterwards."
        )


def _check_same(
    address: str, found: Manifest | None, run: Mapping[str, Any], *, resume: bool
) -> None:
    if found is None:
        return
    differing = [key for key, value in run.items() if found.run.get(key) != value]
    if resume and differing:
        raise UsageError(
            f"{address}: cannot --resume, because {' and '.join(differing)} changed since the run "
            "that wrote there. Choose another --out, or start over without --resume."
        )
    if "input" in differing:
        raise UsageError(
            f"{address}: holds results of another input, and two runs are not mixed. Choose "
            "another --out, or delete that folder first."
        )

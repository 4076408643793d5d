"""Tables whose columns are named like the inputs of a pipeline → items, one a row.

Pictures are paths or URLs, in Parquet also bytes, alone or as ``{bytes, path}``. Other cells are
plain data: nested in Parquet and JSON lines, JSON texts in CSV. An empty cell leaves an input to
its default. A column ``id`` names the items; without it they are called like their pictures.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError, did_you_mean
from sam2_blocks.formats.parquet import open_parquet
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.runs.sources.addresses import (
    absolute,
    decode_picture,
    join,
    open_binary,
    parent_of,
    read_picture,
    stamp_of,
    suffix_of,
)

ID_COLUMN = "id"
ROWS_AT_ONCE = 256
TEXT_KINDS = frozenset({"string", "image"})

Row = Mapping[str, Any]


class TableRows:
    """The rows of a table, each an item; see the module.

    Args:
        address: of the table, a path or URL; its ending says what it is.
        request: what they are for.

    Attributes:
        identity: the table, absolute; see `Source`.

    Raises:
        UsageError: if it cannot be read, is empty, or lacks a column that the pipeline needs.
    """

    alone = False

    def __init__(self, address: str, request: RunRequest) -> None:
        self.identity = absolute(address)
        self._address = address
        self._base = parent_of(address)
        self._pipeline = request.pipeline
        self._request = request
        self._rows = READERS[suffix_of(address)]
        columns = list(next(iter(self._rows(address)), {}))
        if not columns:
            raise UsageError(f"{address}: the table is empty; give a row an item.")
        self._used = [name for name in columns if name in self._pipeline.inputs]
        self._unused = [name for name in columns if name not in (*self._used, ID_COLUMN)]
        self._required = [n for n in self._used if self._pipeline.inputs[n].required]
        self._pictures = [n for n in self._used if "image" in self._pipeline.inputs[n].kinds]
        self._names = columns if ID_COLUMN in columns and ID_COLUMN not in self._used else []
        _check_columns(address, columns, request)

    @functools.cached_property
    def total(self) -> int | None:
        """Number of rows, where the file says it."""
        if suffix_of(self._address) != ".parquet":
            return None
        with open_binary(self._address) as file:
            return int(open_parquet(file, self._address).metadata.num_rows)

    @property
    def notes(self) -> list[str]:
        """One line that says which columns are no inputs."""
        if not self._unused:
            return []
        names = ", ".join(map(repr, self._unused))
        return [f"{self._address}: the pipeline has no inputs {names}; the columns are not used"]

    def items(self) -> Iterator[Item]:
        """List the rows; pictures and cells are read when their batch comes."""
        for number, row in enumerate(self._rows(self._address), start=1):
            yield self._item(number, row)

    def _item(self, number: int, row: Row) -> Item:
        if _BROKEN in row:
            name = f"row {number}"
            return Item(name, {n: functools.partial(_raise, row[_BROKEN]) for n in self._required})
        given = {name: row[name] for name in self._used if row.get(name) not in (None, "")}
        source = next((p for p in (_path_of(given.get(n)) for n in self._pictures) if p), "")
        name = str(row.get(ID_COLUMN) or "") if self._names else source
        name = name or f"row {number}"
        address = join(self._base, source) if source else ""
        stamp = f"{_digest(row)} {stamp_of(address) if address else ''}"
        inputs = {key: self._input(key, value, name) for key, value in given.items()}
        for key in self._required:
            if key not in inputs:
                inputs[key] = functools.partial(_raise, f"the cell of column {key!r} is empty")
        return Item(name, inputs, stamp, source=address)

    def _input(self, name: str, value: Any, item: str) -> Any:
        if name in self._pictures:
            return self._picture(value, item)
        if isinstance(value, str) and not TEXT_KINDS.intersection(
            self._pipeline.inputs[name].kinds
        ):
            return functools.partial(_parse_json, value)
        return value

    def _picture(self, value: Any, item: str) -> Any:
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(content, bytes):
            return functools.partial(decode_picture, content, item, self._request)
        path = _path_of(value)
        if path is None:
            return value  # its kind says what is wrong with it
        return functools.partial(read_picture, join(self._base, path), item, self._request)


def open_table(text: str, request: RunRequest) -> TableRows | None:
    """Open a table, if a text is the name of one; see `SourceFactory`."""
    return TableRows(text, request) if suffix_of(text) in READERS else None


_BROKEN = "\0broken"


def _read_csv(address: str) -> Iterator[Row]:
    with (
        open_binary(address) as file,
        io.TextIOWrapper(file, "utf-8-sig", newline="") as lines,
    ):
        try:
            yield from csv.DictReader(lines, restkey=None, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{address}: is no CSV table in UTF-8: {error}.") from error


def _read_json_lines(address: str) -> Iterator[Row]:
    with open_binary(address) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_row(line, f"{address}, line {number}")


def _parse_row(line: bytes, where: str) -> Row:
    """A row, or what stands for one that is broken: the others go on."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return {_BROKEN: f"{where}: is no JSON ({error})"}
    if not isinstance(row, dict):
        return {_BROKEN: f"{where}: wants a JSON object, got {type(row).__name__}"}
    return row


def _read_parquet(address: str) -> Iterator[Row]:
    with open_binary(address) as file:
        for batch in open_parquet(file, address).iter_batches(batch_size=ROWS_AT_ONCE):
            yield from batch.to_pylist()


READERS: Mapping[str, Callable[[str], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


def _check_columns(address: str, columns: Sequence[str], request: RunRequest) -> None:
    inputs = request.pipeline.inputs
    for name, declared in inputs.items():
        if declared.required and name not in columns and name not in request.settings:
            shown = ", ".join(map(repr, columns[:10]))
            raise UsageError(
                f"{address}: has no column {name!r}, which the pipeline needs; it has {shown}."
                f"{did_you_mean(name, columns)} Columns are named like the pipeline's inputs."
            )
    if not _feeds(request.pipeline, columns):
        raise UsageError(f"{address}: no column is named like an input of the pipeline.")


def _feeds(pipeline: Pipeline, columns: Sequence[str]) -> bool:
    return any(name in pipeline.inputs for name in columns)


def _path_of(value: Any) -> str | None:
    found = value.get("path") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) and found else None


def _digest(row: Row) -> str:
    return hashlib.blake2b(repr(row).encode(errors="replace"), digest_size=8).hexdigest()


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(
            f"wants JSON in the cell, such as [[10, 20, 90, 80]], got {text!r}"
        ) from None


def _raise(message: str) -> NoReturn:
    raise ValueError(message)

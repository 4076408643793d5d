"""Tables whose columns are named like the inputs of a pipeline → items, one a row.

Pictures are paths or URLs, in Parquet also bytes, alone or as ``{bytes, path}``. Other cells are
plain data: nested in Parquet and JSON lines, JSON texts in CSV. An empty cell leaves an input to
its default, and so does a key that a JSON line has not. A column ``id`` names the items; without it
they are called like their pictures.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
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
NO_PICTURE = {"bytes": None, "path": None}
"""How `datasets` of Hugging Face leaves the cell of a picture empty."""

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Stands for bytes that are no UTF-8, where they are read all the same."""

LONGEST_SHOWN = 100
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
        columns = _columns_of(address)
        inputs = self._pipeline.inputs
        # Any line of JSON may have keys that those before it had not.
        listed = columns if suffix_of(address) not in OPEN_ENDED else [*columns, *inputs, ID_COLUMN]
        self._used = [name for name in dict.fromkeys(listed) if name in inputs]
        self._unused = [name for name in columns if name not in (*self._used, ID_COLUMN)]
        self._required = [
            n
            for n in self._used
            if inputs[n].required and (n in columns or n not in request.settings)
        ]
        self._pictures = [n for n in self._used if "image" in self._pipeline.inputs[n].kinds]
        self._plain = [
            n for n in self._used if not TEXT_KINDS.intersection(self._pipeline.inputs[n].kinds)
        ]
        self._names = ID_COLUMN in listed and ID_COLUMN not in self._used
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
        wanted = [*self._used, *([ID_COLUMN] if self._names else [])]
        for number, row in enumerate(self._rows(self._address, wanted), start=1):
            yield self._item(number, row)

    def _item(self, number: int, row: Row) -> Item:
        """One row; kept cheap, since resuming and shards list every row of a table."""
        if _BROKEN in row:
            wrong = functools.partial(_raise, row[_BROKEN])
            return Item(f"row {number}", dict.fromkeys(self._required or self._used[:1], wrong))
        given = {}
        for key in self._used:
            cell = row.get(key)
            if cell is not None and cell != "" and cell != NO_PICTURE:
                given[key] = cell
        source = self._source(given)
        name = self._name(row) or source or f"row {number}"
        address = join(self._base, source) if source else ""
        stamp = f"{_digest(given)} {stamp_of(address) if address else ''}"
        inputs = {}
        for key, cell in given.items():
            if key in self._pictures:
                inputs[key] = self._picture(cell, name, source, address)
            else:
                inputs[key] = cell if key not in self._plain else _plain(cell)
        for key in self._required:
            if key not in inputs:
                inputs[key] = functools.partial(_raise, f"the cell of column {key!r} is empty")
        return Item(name, inputs, stamp, source=address)

    def _name(self, row: Row) -> str:
        named = row.get(ID_COLUMN) if self._names else None
        return "" if named is None else str(named)

    def _source(self, given: Row) -> str:
        """The path or URL of the row's first picture that has one."""
        for key in self._pictures:
            if path := _path_of(given.get(key)):
                return path
        return ""

    def _picture(self, value: Any, item: str, source: str, address: str) -> Any:
        """What reads a picture; ``address`` is where ``source`` is."""
        if not isinstance(value, str):
            content = value.get("bytes") if isinstance(value, Mapping) else value
            if isinstance(content, bytes):
                return functools.partial(decode_picture, content, item, self._request)
        if isinstance(value, int | float):
            said = f"wants a path or a URL of a picture, got {value!r}"
            return functools.partial(_raise, said)
        path = _path_of(value)
        if path is None:
            return value  # its kind says what is wrong with it
        if path != source:
            address = join(self._base, path)
        named_in = self._address if address != path else ""
        return functools.partial(read_picture, address, item, self._request, named_in)


def open_table(text: str, request: RunRequest) -> TableRows | None:
    """Open a table, if a text is the name of one; see `SourceFactory`."""
    return TableRows(text, request) if suffix_of(text) in READERS else None


_BROKEN = "\0broken"


def _read_csv(address: str, columns: Collection[str] | None) -> Iterator[Row]:
    with (
        open_binary(address) as file,
        io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as lines,
    ):
        rows = csv.reader(lines, strict=True)
        try:
            names = next(rows, [])
            _check_names(address, names)
            yield from (
                _named(names, row, f"{address}, line {rows.line_num}") for row in rows if any(row)
            )
        except csv.Error as error:
            raise UsageError(_why_torn(f"{address}, line {rows.line_num}", error)) from error


def _why_torn(where: str, error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"{where}: a cell has more than {csv.field_size_limit():,} characters. Is a quote not "
            "closed? If it is meant, write the table as JSON lines or Parquet."
        )
    return (
        f"{where}: is no CSV table from here on: {error}. Put a cell with commas or quotes into "
        "quotes, and write a quote in it twice."
    )


def _check_names(address: str, names: Sequence[str]) -> None:
    if any(map(_is_not_utf8, names)):
        raise UsageError(f"{address}: is no CSV table in UTF-8: its first line is not.")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise UsageError(f"{address}: two columns are called {twice!r}; leave one of them out.")


def _is_not_utf8(text: str) -> bool:
    return not text.isascii() and NOT_UTF8.search(text) is not None


def _named(names: Sequence[str], cells: Sequence[str], where: str) -> Row:
    """A row of CSV; cells that are missing at its end are empty."""
    if any(map(_is_not_utf8, cells)):
        return {_BROKEN: f"{where}: is no UTF-8; save the table as UTF-8"}
    if any(cells[len(names) :]):
        return {
            _BROKEN: f"{where}: has {len(cells)} cells, the first line names {len(names)}. Put a "
            'cell with commas into quotes, and write a quote in it twice: "[{""box_xyxy"": …}]"'
        }
    return dict(zip_longest(names, cells[: len(names)], fillvalue=""))


def _read_json_lines(address: str, columns: Collection[str] | None) -> Iterator[Row]:
    with open_binary(address) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_row(line, address, number)


def _parse_row(line: bytes, address: str, number: int) -> Row:
    """A row, or what stands for one that is broken: the others go on."""
    try:
        text = str(line, "utf-8")  # json.loads would look for other encodings first
        row = json.loads(text.lstrip("\ufeff") if number == 1 else text)
    except (ValueError, RecursionError) as error:
        return {_BROKEN: f"{address}, line {number}: is no JSON ({error})"}
    if not isinstance(row, dict):
        got = type(row).__name__
        return {_BROKEN: f"{address}, line {number}: wants a JSON object, got {got}"}
    return row


def _read_parquet(address: str, columns: Collection[str] | None) -> Iterator[Row]:
    with open_binary(address) as file:
        table = open_parquet(file, address)
        wanted = None if columns is None else list(columns)
        # So few rows are not worth threads, each of which would keep memory of its own.
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=wanted, use_threads=False):
            names = batch.schema.names
            cells = [column.to_pylist() for column in batch.columns]
            yield from (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))


READERS: Mapping[str, Callable[[str, Collection[str] | None], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""Rows of a table by its ending; those that can give the columns asked for, and no others."""


OPEN_ENDED = frozenset({".jsonl", ".ndjson"})
"""Endings of tables without a list of their columns."""


def _columns_of(address: str) -> list[str]:
    """The columns of a table; of JSON lines, the keys of the first ones.

    Raises:
        UsageError: if there is none.
    """
    rows = list(islice(READERS[suffix_of(address)](address, None), ROWS_AT_ONCE))
    columns = list(dict.fromkeys(name for row in rows if _BROKEN not in row for name in row))
    if rows and not columns:
        raise UsageError(rows[0].get(_BROKEN) or f"{address}: no row names an input.")
    if not columns:
        raise UsageError(f"{address}: the table is empty; give a row an item.")
    return columns


def _check_columns(address: str, columns: Sequence[str], request: RunRequest) -> None:
    inputs = request.pipeline.inputs
    for name, declared in inputs.items():
        if declared.required and name not in columns and name not in request.settings:
            shown = ", ".join(map(repr, columns[:10]))
            if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
                raise UsageError(f"{address}: wants commas between the columns, got {shown}.")
            raise UsageError(
                f"{address}: has no column {name!r}, which the pipeline needs; it has {shown}."
                f"{did_you_mean(name, columns)} Name columns like the pipeline's inputs."
            )
    if not _feeds(request.pipeline, columns):
        raise UsageError(f"{address}: no column is named like an input of the pipeline.")


def _feeds(pipeline: Pipeline, columns: Sequence[str]) -> bool:
    return any(name in pipeline.inputs for name in columns)


def _path_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    found = value.get("path") if isinstance(value, Mapping) else None
    return found if isinstance(found, str) and found else None


def _digest(row: Row) -> str:
    return hashlib.blake2b(repr(row).encode(errors="replace"), digest_size=8).hexdigest()


def _plain(cell: Any) -> Any:
    """Plain data; a text is JSON."""
    return functools.partial(_parse_json, cell) if isinstance(cell, str) else cell


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"wants JSON in the cell, such as [[10, 20, 90, 80]], got {_short(text)}"
        ) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")


def _raise(message: str) -> NoReturn:
    raise ValueError(message)

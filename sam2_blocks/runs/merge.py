"""Parts of all shards → one file, row by row, in the order of the items."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sam2_blocks.engine.places import Shard
from sam2_blocks.errors import UsageError, did_you_mean
from sam2_blocks.files.atomic import write_atomically, write_text
from sam2_blocks.files.per_picture import relative_path, stem_of
from sam2_blocks.formats.coco import CategoryNumbers, Ids, number_categories
from sam2_blocks.formats.columns import structs_to_detections
from sam2_blocks.formats.parquet import cell_to_text, load_pyarrow, open_parquet, text_to_cell
from sam2_blocks.formats.yolo import data_yaml, detections_to_yolo
from sam2_blocks.runs.shards import Manifest, Part, read_manifests
from sam2_blocks.runs.sources.addresses import join, seen_from, tidy
from sam2_blocks.runs.stores import LocalStore, Store, open_store

ROWS_AT_ONCE = 64
ROWS_A_GROUP = 1000
CALLED = {"coco": "coco.json", "parquet": "merged.parquet", "yolo": ""}

Row = Mapping[str, Any]
Target = Literal["coco", "yolo", "parquet"]


@dataclass(frozen=True)
class Merged:
    """What a merge wrote.

    Attributes:
        path: the file, or the folder of files.
        items: number of rows.
        failed: number of items that have none, because they failed.
    """

    path: Path
    items: int
    failed: int


def merge_parts(
    address: str | Path, to: Target, *, path: Path | None = None, output: str | None = None
) -> Merged:
    """Join the parts that the shards of a run wrote.

    Args:
        address: the folder or URL that they are in.
        to: what is made of them.
        path: where it goes; into ``address`` if not given.
        output: the output with the detections, where the pipeline has several.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        UsageError: if shards are missing or not complete, a part is not whole, or the shards did
            not run on the same items.
    """
    store, manifests = _open_complete(address)
    if path is None and not isinstance(store, LocalStore):
        raise UsageError(f"{store.address}: say which file of this machine to write, with --file.")
    target = path or Path(store.address) / CALLED[to]
    rows = Rows(store, manifests)
    if to == "parquet":
        base = str(target.parent)
        write_atomically(target, lambda file: rows.write_table(file, base))
    else:
        name = _choose_output(store.address, manifests, output)
        if to == "coco":
            write_atomically(target, lambda file: _write_coco(rows, name, file))
        else:
            _write_yolo(rows, name, target)
    return Merged(target, rows.count, rows.failed)


def open_rows(address: str | Path, output: str | None = None) -> tuple[Rows, str]:
    """Open the parts of a run that is complete, and find the output with the detections.

    Args:
        address: the folder or URL of the parts.
        output: name of the output, where there are several with detections.

    Returns:
        The rows, and the name of the output.

    Raises:
        UsageError: as `merge_parts`.
    """
    store, manifests = _open_complete(address)
    return Rows(store, manifests), _choose_output(store.address, manifests, output)


def _open_complete(address: str | Path) -> tuple[Store, Mapping[Shard, Manifest]]:
    store = open_store(address)
    manifests = read_manifests(store)
    _check_complete(store, manifests)
    return store, manifests


class Rows:
    """The rows of all parts, read again for each pass, a few at a time.

    Args:
        store: where they are.
        manifests: of all shards.

    Attributes:
        count: number of rows.
        failed: number of items that have none, because they failed.
        categories: of the COCO files that items are from.

    Raises:
        UsageError: if a part is not whole.
    """

    def __init__(self, store: Store, manifests: Mapping[Shard, Manifest]) -> None:
        parts = [part for manifest in manifests.values() for part in manifest.parts]
        self.count = sum(part.rows for part in parts if not part.errors)
        self.failed = sum(part.rows for part in parts if part.errors)
        listed = [row for manifest in manifests.values() for row in manifest.categories]
        self.categories = [row for place, row in enumerate(listed) if row not in listed[:place]]
        self._store = store
        self._parts = [part for part in parts if not part.errors]
        sizes = store.sizes()
        for part in self._parts:
            _check_size(f"{store.address}/{part.file}", sizes.get(part.file), part.size)
        self._starts = sorted((self._first_place(part), part.file) for part in self._parts)

    def read(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows in the order of the items; a part is opened when its first row comes.

        Raises:
            UsageError: if two rows are of one item.
        """
        wanted = None if columns is None else [*dict.fromkeys(["id", "place", *columns])]
        seen: set[str] = set()
        open_rows: list[tuple[int, str, Row, Iterator[Row]]] = []
        waiting = list(reversed(self._starts))
        while waiting or open_rows:
            while waiting and (not open_rows or waiting[-1][0] <= open_rows[0][0]):
                file = waiting.pop()[1]
                self._push(open_rows, file, self._rows_of(file, wanted))
            _, file, row, rest = heapq.heappop(open_rows)
            if row["id"] in seen:
                raise UsageError(
                    f"{self._store.address}: two rows are of the item {row['id']!r}; the inputs "
                    "changed between the shards. Run the shards again without --resume."
                )
            seen.add(row["id"])
            yield row
            self._push(open_rows, file, rest)

    def write_table(self, file: BinaryIO, base: str) -> None:
        """Write all rows as one table."""
        arrow = load_pyarrow()
        if not self._parts:
            raise UsageError(
                f"{self._store.address}: no item succeeded; there is nothing to merge."
            )
        with self._store.open(self._parts[0].file) as first:
            schema = open_parquet(first, self._parts[0].file).schema_arrow
        with arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            group: list[Row] = []
            for row in self.read():
                group.append(self._named_from(base, row))
                if len(group) == ROWS_A_GROUP:
                    writer.write_table(arrow.Table.from_pylist(group, schema=schema))
                    group = []
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))

    def _named_from(self, base: str, row: Row) -> Row:
        """A row that names its picture as a file in this folder does."""
        source, here = cell_to_text(row.get("source") or ""), self._store.address
        if base == here or join(here, source) == source:
            return row
        return {**row, "source": text_to_cell(seen_from(base, tidy(join(here, source))))}

    def _first_place(self, part: Part) -> int:
        return next(int(row["place"]) for row in self._rows_of(part.file, ["place"]))

    def _rows_of(self, name: str, columns: Sequence[str] | None) -> Iterator[Row]:
        with self._store.open(name) as file:
            parquet = open_parquet(file, f"{self._store.address}/{name}")
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                yield from batch.to_pylist()

    @staticmethod
    def _push(heap: list[tuple[int, str, Row, Iterator[Row]]], file: str, rows: Any) -> None:
        row = next(rows, None)
        if row is not None:
            heapq.heappush(heap, (row["place"], file, row, rows))


def _check_size(address: str, found: int | None, written: int) -> None:
    if found is None:
        raise UsageError(f"{address}: is not there any more. --resume makes it again.")
    if found != written:
        raise UsageError(
            f"{address}: has {found} bytes, not the {written} that were written; was it cut short? "
            "--resume makes it again."
        )


def _check_complete(store: Store, manifests: Mapping[Shard, Manifest]) -> None:
    if not manifests:
        raise UsageError(
            f"{store.address}: holds no parts; run with --format parquet or --shard first."
        )
    first, count = next(iter(manifests.values())), next(iter(manifests)).count
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        manifest = manifests.get(shard)
        if manifest is None or not manifest.complete:
            what = "has not begun" if manifest is None else "is not complete"
            again = "" if count == 1 else f" --shard {shard.number}/{count}"
            raise UsageError(
                f"{store.address}: the shard {shard.name} {what}. Run it with{again} --resume."
            )
        if manifest.run != first.run:
            raise UsageError(f"{store.address}: the shards are of different runs.")


def _choose_output(address: str, manifests: Mapping[Shard, Manifest], name: str | None) -> str:
    outputs = next(iter(manifests.values())).outputs
    if name is None and len(outputs) == 1:
        return outputs[0]
    shown = ", ".join(map(repr, outputs)) or "none"
    if name is None:
        raise UsageError(f"{address}: the outputs with detections are {shown}; name one: --output.")
    if name not in outputs:
        raise UsageError(
            f"{address}: no output with detections is called {name!r}; there are {shown}."
            f"{did_you_mean(name, outputs)}"
        )
    return name


# --- COCO -------------------------------------------------------------------------------------


def _write_coco(rows: Rows, output: str, file: BinaryIO) -> None:
    """Write images, annotations and categories, each in a pass of its own; nothing is held."""
    categories = _categories(rows, output)
    file.write(b'{"images": [')
    _write_list(file, _images(rows))
    file.write(b'],\n"annotations": [')
    _write_list(file, _annotations(rows, output, CategoryNumbers(categories)))
    file.write(b'],\n"categories": [')
    _write_list(file, iter(categories))
    file.write(b"]}\n")


def _write_list(file: BinaryIO, values: Iterator[Mapping[str, Any]]) -> None:
    for number, value in enumerate(values):
        file.write((",\n" if number else "\n").encode() + json.dumps(value).encode())


def _images(rows: Rows) -> Iterator[Mapping[str, Any]]:
    ids = Ids(row["coco_image_id"] for row in rows.read(["coco_image_id"]))
    for row in rows.read(["image_hw", "coco_image_id"]):
        height, width = row["image_hw"]
        number = ids.take(row["coco_image_id"])
        name = cell_to_text(row["id"])
        yield {"id": number, "file_name": name, "width": width, "height": height}


def _annotations(rows: Rows, output: str, numbers: CategoryNumbers) -> Iterator[Row]:
    image_ids = Ids(row["coco_image_id"] for row in rows.read(["coco_image_id"]))
    given = (found for row in rows.read([output]) for found in row[output] or ())
    ids = Ids(found["annotation_id"] for found in given)
    for row in rows.read([output, "coco_image_id"]):
        image_id = image_ids.take(row["coco_image_id"])
        for found in row[output] or ():
            optional = {
                "score": found["confidence"],
                "track_id": found["tracker_id"],
                "segmentation": found["segmentation"],
            }
            yield {
                "id": ids.take(found["annotation_id"]),
                "image_id": image_id,
                "category_id": numbers.of(_class_name(found), found["class_id"]),
                "bbox": found["bbox"],
                "area": found["area"],
                "iscrowd": int(found["iscrowd"]),
                **{key: value for key, value in optional.items() if value is not None},
            }


def _categories(rows: Rows, output: str) -> list[dict[str, Any]]:
    """As `export/coco` has them."""
    pairs = {
        (_class_name(found), found["class_id"])
        for row in rows.read([output])
        for found in row[output] or ()
    }
    seen = [{"category": name, "class_id": number} for name, number in pairs]
    return number_categories(seen, rows.categories)


def _class_name(found: Row) -> str:
    return cell_to_text(str(found["class_name"] or "object"))


# --- YOLO -------------------------------------------------------------------------------------


def _write_yolo(rows: Rows, output: str, folder: Path) -> None:
    """Write a label file a picture, and ``data.yaml``; classes are 0 to n - 1, in COCO's order."""
    classes = [row["name"] for row in _categories(rows, output)]
    text_of = _yolo_text(output, classes)
    _check_labels(folder, (cell_to_text(row["id"]) for row in rows.read([])))
    for row in rows.read(["image_hw", output]):
        write_text(_label_of(folder, cell_to_text(row["id"])), text_of(row))
    write_text(folder / "data.yaml", data_yaml(classes))


def _label_of(folder: Path, item: str) -> Path:
    path = relative_path(item)
    return folder / "labels" / path.with_name(f"{stem_of(path.name)}.txt")


def _check_labels(folder: Path, items: Iterable[str]) -> None:
    """Refuse pictures that would have one label file, before any is written."""
    owners: dict[Path, str] = {}
    for name in items:
        path = _label_of(folder, name)
        if (other := owners.setdefault(path, name)) != name:
            raise UsageError(
                f"{path}: would be of {other!r} and of {name!r}, whose names differ in "
                "their endings alone; merge --to coco instead."
            )


def _yolo_text(output: str, classes: Sequence[str]) -> Callable[[Row], str]:
    def text_of(row: Row) -> str:
        height, width = row["image_hw"]
        found = structs_to_detections(row[output] or (), (height, width))
        numbers = [classes.index(_class_name(one)) for one in row[output] or ()]
        return detections_to_yolo(found, (height, width), number_of=numbers.__getitem__)

    return text_of

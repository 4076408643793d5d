from __future__ import annotations

import json
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.runs.sources.tables import TableRows, open_table

BOXES = [[1, 1, 5, 5], [2, 2, 6, 6]]


@pytest.fixture
def folder(tmp_path, picture):
    for width, name in enumerate(("a.png", "b.png"), start=8):
        (tmp_path / name).write_bytes(picture(width))
    return tmp_path


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        lines = [",".join(rows[0])]
        for row in rows:
            cells = ('"' + json.dumps(v) + '"' if isinstance(v, list) else v for v in row.values())
            lines.append(",".join("" if cell is None else cell for cell in cells))
        path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_feed_the_inputs_of_their_names(folder, asked, read, suffix):
    rows = [
        {"id": "first", "image": "a.png", "boxes": BOXES, "model": "tiny"},
        {"id": "second", "image": "b.png", "boxes": None, "model": "tiny"},
    ]
    source = open_table(write(folder / f"t{suffix}", rows), asked)
    first, second = source.items()
    assert (first.id, second.id) == ("first", "second")
    assert (read(first).hw, read(first, "boxes"), read(first, "model")) == ((6, 8), BOXES, "tiny")
    assert read(second).hw == (6, 9)
    assert "boxes" not in second.inputs  # the pipeline's default
    assert first.source == str(folder / "a.png")
    assert source.total == (2 if suffix == ".parquet" else None)
    assert source.notes == []


def test_rows_are_called_like_their_pictures_without_an_id(folder, asked):
    path = write(folder / "t.jsonl", [{"image": "a.png", "camera": 3}, {"image": "b.png"}])
    source = TableRows(path, asked)
    assert [item.id for item in source.items()] == ["a.png", "b.png"]
    assert source.notes == [
        f"{path}: the pipeline has no inputs 'camera'; the columns are not used"
    ]


def test_a_json_line_may_have_keys_that_the_first_one_has_not(folder, asked, read):
    rows = [{"image": "a.png"}] * 300 + [{"id": "late", "image": "b.png", "boxes": BOXES}]
    *_, last = TableRows(write(folder / "t.jsonl", rows), asked).items()
    assert (last.id, read(last, "boxes")) == ("late", BOXES)


def test_an_id_that_is_empty_is_none(folder, asked):
    rows = [{"id": 0, "image": "a.png"}, {"id": "", "image": "a.png"}, {"id": 7, "image": ""}]
    items = TableRows(write(folder / "t.jsonl", rows), asked).items()
    assert [item.id for item in items] == ["0", "a.png", "7"]


def test_pictures_in_parquet_may_be_bytes(folder, asked, read, picture):
    cells = [{"bytes": picture(11), "path": "x.png"}, {"bytes": None, "path": "a.png"}]
    path = write(folder / "t.parquet", [{"image": cell} for cell in cells])
    items = list(TableRows(path, asked).items())
    assert [item.id for item in items] == ["x.png", "a.png"]
    assert [read(item).hw[1] for item in items] == [11, 8]


def test_a_row_that_is_wrong_is_wrong_alone(folder, asked, read):
    good = json.dumps({"image": "a.png"})
    (folder / "t.jsonl").write_text(f"{good}\n{{torn\n[3]\n{json.dumps({'image': ''})}\n{good}\n")
    items = list(TableRows(str(folder / "t.jsonl"), asked).items())
    assert [item.id for item in items] == ["a.png", "row 2", "row 3", "row 4", "a.png"]
    for item, message in zip(
        items[1:4],
        [r"t\.jsonl, line 2: is no JSON", r"line 3: wants a JSON object, got list", "is empty"],
        strict=True,
    ):
        with pytest.raises(ValueError, match=message):
            read(item)
    lines = ("image,boxes", "a.png", "a.png,1;2;3;4", "a.png,[[1,2]]", "a.png,,,", ",,")
    (folder / "t.csv").write_text("\n".join(lines))
    short, bad, long, good = TableRows(str(folder / "t.csv"), asked).items()
    assert "boxes" not in short.inputs
    with pytest.raises(ValueError, match=r"wants JSON in the cell.*got '1;2;3;4'"):
        read(bad, "boxes")
    with pytest.raises(ValueError, match=r"t\.csv, line 4: has 3 cells, the first line names 2"):
        read(long)
    assert read(good).hw == (6, 8)


def test_a_row_that_is_no_utf8_is_wrong_alone(folder, asked, read):
    (folder / "t.csv").write_bytes("id,image\nä,a.png\n".encode() + b"\xe4,a.png\nb,a.png\n")
    good, bad, other = TableRows(str(folder / "t.csv"), asked).items()
    assert (good.id, other.id) == ("ä", "b")
    with pytest.raises(ValueError, match=r"t\.csv, line 3: is no UTF-8; save the table as UTF-8"):
        read(bad)


def test_a_quote_that_is_wrong_ends_a_table_there(folder, asked):
    (folder / "t.csv").write_text("image\n" + "a.png\n" * 300 + '"a"b.png\n')
    items = TableRows(str(folder / "t.csv"), asked).items()
    assert [next(items).id for _ in range(300)] == ["a.png"] * 300
    with pytest.raises(UsageError, match=r"t\.csv, line 302: is no CSV table from here on: .*twic"):
        next(items)


def test_json_that_is_too_deep_and_a_picture_that_is_null_are_wrong_alone(folder, asked, read):
    deep = "[" * 100_000 + "]" * 100_000
    (folder / "t.jsonl").write_text(f'{{"image": {deep}}}\n{{"image": "a.png"}}\n')
    bad, good = TableRows(str(folder / "t.jsonl"), asked).items()
    with pytest.raises(ValueError, match="line 1: is no JSON"):
        read(bad)
    assert read(good).hw == (6, 8)
    (folder / "t.csv").write_text(f"image,boxes\na.png,{deep}\n")
    with pytest.raises(UsageError, match=r"line 2: a cell has more than 131,072 .* or Parquet\.$"):
        open_table(str(folder / "t.csv"), asked)
    (folder / "t.csv").write_text(f"image,boxes\na.png,{deep[40_000:-40_000]}\n")
    (bad,) = TableRows(str(folder / "t.csv"), asked).items()
    with pytest.raises(ValueError, match=r"wants JSON in the cell, .*, got '\[{100}…'$"):
        read(bad, "boxes")
    cells = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}]
    path = write(folder / "t.parquet", [{"image": cell} for cell in cells])
    _, bad = TableRows(path, asked).items()
    with pytest.raises(ValueError, match="the cell of column 'image' is empty"):
        read(bad)


def test_a_number_is_no_picture(folder, asked, read):
    (item,) = TableRows(write(folder / "t.jsonl", [{"image": 7}]), asked).items()
    with pytest.raises(ValueError, match="wants a path or a URL of a picture, got 7"):
        read(item)


def test_a_stamp_tells_when_a_row_changed(folder, asked):
    rows = [{"image": "a.png", "boxes": BOXES}, {"image": "b.png", "boxes": BOXES}]
    before = [item.stamp for item in TableRows(write(folder / "t.jsonl", rows), asked).items()]
    rows[0]["boxes"] = BOXES[:1]
    after = [item.stamp for item in TableRows(write(folder / "t.jsonl", rows), asked).items()]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_table_that_does_not_fit_is_refused(folder, asked):
    for name, content, message in (
        ("t.csv", "imge,boxes\na,b\n", r"has no column 'image', which the pipeline needs.*'imge'"),
        ("t.csv", "", "the table is empty"),
        ("t.csv", "image,boxes,image\na,b,c\n", "two columns are called 'image'; leave one of"),
        ("t.csv", "image;boxes\na.png;3\n", "wants commas between the columns, got 'image;boxes'"),
        ("t.csv", "image\n".encode("utf-16"), "is no CSV table in UTF-8"),
        ("t.jsonl", '{"image"\n', r"t\.jsonl, line 1: is no JSON"),
        ("t.jsonl", "{}\n", "no row names an input"),
        ("t.parquet", "PAR1 no", "is no whole Parquet file"),
        ("gone.csv", None, r"gone\.csv: cannot be read"),
    ):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UsageError, match=message):
            open_table(str(folder / name), asked)
    assert open_table("photos", asked) is None


def test_a_table_may_be_remote_and_its_pictures_beside_it(asked, memory, picture, read):
    memory.pipe_file("/data/deep/a.png", picture(9))
    memory.pipe_file("/data/t.csv", b"image\ndeep/a.png\n")
    (item,) = open_table("memory://data/t.csv", asked).items()
    assert (item.id, read(item).hw) == ("deep/a.png", (6, 9))


def test_listing_many_rows_costs_the_same_for_each(tmp_path, asked):
    count = 20_000
    table = pa.table({"image": [f"s3://bucket/{n:07}.jpg" for n in range(count)]})
    pq.write_table(table, tmp_path / "t.parquet")
    source = TableRows(str(tmp_path / "t.parquet"), asked)
    tracemalloc.start()
    start = time.perf_counter()
    assert sum(1 for _ in source.items()) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert time.perf_counter() - start < 60

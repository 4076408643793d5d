from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import supervision as sv

from sam2_blocks.engine.places import Shard
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.columns import find_column
from sam2_blocks.masks.rle import coco_to_rle, rle_area
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.runs.shards import Manifest, ShardFiles
from sam2_blocks.runs.stores import open_store

MASKED = find_column(["rle_instance_segmentation_prediction"])


def found_of(*classes):
    mask = np.zeros((len(classes), 6, 8), bool)
    mask[:, 1:4, 2:7] = True
    return sv.Detections(
        xyxy=np.tile(np.array([[2, 1, 6, 3]], np.float32), (len(classes), 1)),
        mask=mask,
        class_id=np.array([number for _, number in classes], int),
        confidence=np.full(len(classes), 0.5, np.float32),
        data={"class_name": np.array([name for name, _ in classes], np.str_)},
    )


@pytest.fixture
def write_shard(tmp_path):
    """Write the parts of a shard: ``write_shard("1/2", [[(place, id, detections)]])``."""

    def write(shard, parts, *, run="this", complete=True, outputs=("found",)):
        files = ShardFiles(open_store(tmp_path), Shard.parse(shard))
        files.take(Manifest(run={"run": run}, outputs=list(outputs)))
        for rows in parts:
            cells = {
                "id": [name for _, name, _ in rows],
                "place": [place for place, _, _ in rows],
                "image_hw": [[6, 8]] * len(rows),
                "coco_image_id": pa.nulls(len(rows), pa.int64()),
                "found": pa.array([MASKED.cell(found) for *_, found in rows], MASKED.type),
            }
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(cells), sink)
            files.add(sink.getvalue().to_pybytes(), len(rows))
        files.current.complete = complete
        files.save()

    return write


CAT, DOG = ("cat", 7), ("dog", 3)


@pytest.fixture
def two(write_shard, tmp_path):
    """Two shards; a part of the first has a row that was run again later."""
    write_shard("1/2", [[(0, "a.png", found_of(CAT)), (4, "e.png", found_of())], [(2, "c.png", found_of(DOG, CAT))]])  # fmt: skip # noqa: E501
    write_shard("2/2", [[(1, "deep/b.png", found_of(DOG)), (3, "d.png", found_of())]])
    return tmp_path


ORDER = ["a.png", "deep/b.png", "c.png", "d.png", "e.png"]


def test_coco_has_all_in_the_order_of_the_items(two):
    merged = merge_parts(two, "coco")
    assert (merged.path, merged.items, merged.failed) == (two / "coco.json", 5, 0)
    coco = json.loads(merged.path.read_text())
    assert [image["file_name"] for image in coco["images"]] == ORDER
    assert coco["categories"] == [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    found = [(a["id"], a["image_id"], a["category_id"]) for a in coco["annotations"]]
    assert found == [(1, 1, 7), (2, 2, 3), (3, 3, 3), (4, 3, 7)]
    first = coco["annotations"][0]
    assert (first["bbox"], first["area"], first["score"]) == ([2, 1, 5, 3], 15, 0.5)
    assert "track_id" not in first
    assert rle_area(coco_to_rle(first["segmentation"])) == 15


def test_class_ids_that_clash_are_numbered_by_name(write_shard, tmp_path):
    write_shard("1/1", [[(0, "a.png", found_of(("cat", 0), ("ant", 0)))]])
    coco = json.loads(merge_parts(tmp_path, "coco").path.read_text())
    assert coco["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}]


def test_parquet_is_one_table(two):
    table = pq.read_table(merge_parts(two, "parquet").path)
    assert table.column("id").to_pylist() == ORDER
    assert table.schema.field("found").type == MASKED.type


def test_pages_of_one_file_have_labels_of_their_own(write_shard, tmp_path):
    write_shard("1/1", [[(0, "deep/a.tif#0", found_of(CAT)), (1, "deep/a.tif#1", found_of(DOG))]])
    folder = merge_parts(tmp_path, "yolo", path=tmp_path / "set").path
    labels = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt"))
    assert labels == ["labels/deep/a#0.txt", "labels/deep/a#1.txt"]


def test_no_label_is_written_where_two_pictures_would_have_one(write_shard, tmp_path):
    write_shard("1/1", [[(0, "a.jpg", found_of(CAT)), (1, "a.png", found_of(DOG))]])
    with pytest.raises(UsageError, match=r"would be of 'a\.jpg' and of 'a\.png', whose names"):
        merge_parts(tmp_path, "yolo", path=tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_yolo_is_a_label_a_picture(two, tmp_path):
    folder = merge_parts(two, "yolo", path=tmp_path / "set").path
    assert (folder / "data.yaml").read_text() == 'nc: 2\nnames:\n  0: "dog"\n  1: "cat"\n'
    labels = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.txt")}
    assert set(labels) == {"labels/a.txt", "labels/deep/b.txt", "labels/c.txt", "labels/d.txt",
                           "labels/e.txt"}  # fmt: skip
    assert [line.split()[0] for line in labels["labels/c.txt"].splitlines()] == ["0", "1"]
    assert labels["labels/d.txt"] == ""


def test_shards_that_are_not_complete_are_named(write_shard, tmp_path):
    with pytest.raises(UsageError, match="holds no parts; run with --format parquet"):
        merge_parts(tmp_path, "coco")
    write_shard("1/2", [[(0, "a.png", found_of(CAT))]])
    with pytest.raises(UsageError, match=r"2-of-2 has not begun. Run it with --shard 2/2"):
        merge_parts(tmp_path, "coco")
    write_shard("2/2", [], complete=False)
    with pytest.raises(UsageError, match=r"2-of-2 is not complete\. Run it with --shard 2/2"):
        merge_parts(tmp_path, "coco")
    write_shard("2/2", [], run="other")
    with pytest.raises(UsageError, match="the shards are of different runs"):
        merge_parts(tmp_path, "coco")


def test_a_part_that_is_gone_or_torn_is_named(two):
    part = next(two.glob("part-2-of-2-*.parquet"))
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(UsageError, match=r"part-2.*has \d+ bytes, not the \d+ .*--resume makes it"):
        merge_parts(two, "coco")
    part.unlink()
    with pytest.raises(UsageError, match=r"part-2.*is not there any more. --resume makes it again"):
        merge_parts(two, "coco")


def test_an_item_that_is_there_twice_is_found(write_shard, tmp_path):
    write_shard("1/2", [[(0, "a.png", found_of(CAT))]])
    write_shard("2/2", [[(1, "a.png", found_of(CAT))]])
    with pytest.raises(UsageError, match=r"two rows are of the item 'a\.png'"):
        merge_parts(tmp_path, "coco")


def test_the_output_is_chosen(write_shard, tmp_path):
    write_shard("1/1", [[(0, "a.png", found_of(CAT))]], outputs=["found", "boxes"])
    with pytest.raises(UsageError, match=r"'found', 'boxes'; name one: --output"):
        merge_parts(tmp_path, "coco")
    with pytest.raises(UsageError, match=r"is called 'fund'.*Did you mean 'found'"):
        merge_parts(tmp_path, "coco", output="fund")
    assert merge_parts(tmp_path, "coco", output="found").items == 1


def test_nothing_that_succeeded_is_no_table(write_shard, tmp_path):
    write_shard("1/1", [])
    with pytest.raises(UsageError, match="no item succeeded"):
        merge_parts(tmp_path, "parquet")
    assert json.loads(merge_parts(tmp_path, "coco").path.read_text())["images"] == []


def test_parts_elsewhere_want_a_file_here():
    import fsspec

    fsspec.filesystem("memory").store.clear()
    store = open_store("memory://merge")
    files = ShardFiles(store, Shard())
    files.take(Manifest(run={}))
    files.current.complete = True
    files.save()
    with pytest.raises(UsageError, match="say which file of this machine to write, with --file"):
        merge_parts("memory://merge", "coco")

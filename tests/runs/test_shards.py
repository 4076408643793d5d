from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from sam2_blocks import Item
from sam2_blocks.engine.places import Shard
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.shards import Manifest, ShardFiles, ShardOf, read_manifests
from sam2_blocks.runs.stores import open_store


def source_of(*items):
    return SimpleNamespace(
        identity="these", notes=["n"], total=len(items), items=lambda: iter(items)
    )


def shares(source, count):
    shards = [ShardOf(source, Shard(number, count)) for number in range(1, count + 1)]
    return [[(item.id, item.place) for item in shard.items()] for shard in shards]


def test_each_item_is_in_one_shard_with_its_place():
    source = source_of(*(Item(name, {}) for name in "abcde"))
    assert shares(source, 2) == [[("a", 0), ("c", 2), ("e", 4)], [("b", 1), ("d", 3)]]
    assert shares(source, 7)[5:] == [[], []]
    shard = ShardOf(source, Shard(2, 2))
    assert (shard.total, shard.identity, shard.notes) == (2, "these", ["n"])


def test_a_group_is_in_one_shard():
    frames = [Item(f"{clip}{n}", {}, group=clip) for clip in "xyz" for n in range(3)]
    first, second = shares(source_of(*frames), 2)
    assert [name for name, _ in first] == ["x0", "x1", "x2", "z0", "z1", "z2"]
    assert second == [("y0", 3), ("y1", 4), ("y2", 5)]
    assert ShardOf(source_of(*frames), Shard(1, 2)).total is None


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/", "-1/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match=r"--shard wants i/n.*got"):
        Shard.parse(text)


def test_a_shard_is_read():
    assert Shard.parse("3/16") == Shard(3, 16)
    assert Shard(3, 16).name == "3-of-16"


@pytest.fixture
def files(tmp_path):
    made = ShardFiles(open_store(tmp_path), Shard(1, 2))
    made.take(Manifest(run={}))
    return made


def test_a_part_counts_when_the_manifest_says_so(files, tmp_path):
    files.add(b"12345", 3)
    assert read_manifests(files.store)[Shard(1, 2)].parts == []
    files.add(b"1", 1, errors=True)
    files.save()
    parts = read_manifests(files.store)[Shard(1, 2)].parts
    assert [(p.file, p.rows, p.size, p.errors) for p in parts] == [
        ("part-1-of-2-00000.parquet", 3, 5, False),
        ("errors-1-of-2-00001.parquet", 1, 1, True),
    ]


def test_what_does_not_count_is_removed_and_other_shards_stay(files, tmp_path):
    for name in ("part-1-of-2-00007.parquet", "part-2-of-2-00007.parquet", "mine.parquet"):
        (tmp_path / name).write_bytes(b"x")
    files.take(Manifest(run={}))
    left = {path.name for path in tmp_path.glob("*.parquet")}
    assert left == {"part-2-of-2-00007.parquet", "mine.parquet"}


def test_who_was_taken_over_from_stops(files, tmp_path):
    later = ShardFiles(open_store(tmp_path), Shard(1, 2))
    later.take(Manifest(run={}))
    files.add(b"1", 1)
    with pytest.raises(UsageError, match="another run of the shard 1-of-2 began to write"):
        files.save()
    later.save()


def test_a_manifest_that_is_none_and_other_shards_are_refused(files, tmp_path):
    with pytest.raises(
        UsageError, match=r"2 shards, this is one of 3. Go on with --shard i/2 --resume"
    ):
        ShardFiles(files.store, Shard(1, 3)).earlier()
    (tmp_path / "manifest-2-of-2.json").write_text(json.dumps({"parts": 3}))
    with pytest.raises(UsageError, match=r"manifest-2-of-2\.json: is no manifest of a shard"):
        files.earlier()

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest

from sam2_blocks.errors import FileWarning, ImageError, UsageError
from sam2_blocks.runs.sources.shards import expand_range, open_shards
from tests.runs.sources.conftest import BOXES

BOXES_KIND = "object_detection_prediction"


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path, picture):
    boxes = json.dumps([[1, 1, 4, 4]]).encode()
    whole = json.dumps({"boxes": [[2, 2, 5, 5]], "camera": 3}).encode()
    write_tar(tmp_path / "d-00.tar", {"0001.png": picture(8), "0001.boxes.json": boxes})
    write_tar(
        tmp_path / "d-01.tar",
        {"0001.json": whole, "0001.png": picture(9), "x/2.cls": b"3", "x/2.png": picture(10)},
    )
    return tmp_path


def test_files_of_one_key_are_an_item(shards, asked, read):
    source = open_shards(str(shards / "d-{00..01}.tar"), asked)
    items = list(source.items())
    assert [item.id for item in items] == ["d-00/0001", "d-01/0001", "d-01/x/2"]
    assert [read(item).hw[1] for item in items] == [8, 9, 10]
    assert [read(item, "boxes") for item in items[:2]] == [[[1, 1, 4, 4]], [[2, 2, 5, 5]]]
    assert "boxes" not in items[2].inputs
    assert len({item.stamp for item in items}) == 3


def test_patterns_and_urls_are_shards_too(shards, asked, memory, read):
    assert len(list(open_shards(str(shards / "*.tar"), asked).items())) == 3
    memory.pipe_file("/s/d-00.tar", (shards / "d-00.tar").read_bytes())
    (item,) = open_shards("memory://s/*.tar", asked).items()
    assert (item.id, read(item).hw) == ("d-00/0001", (6, 8))


def test_a_pattern_names_each_shard_once_also_in_a_circle_of_links(shards, asked):
    (shards / "b").mkdir()
    (shards / "b" / "loop").symlink_to("..", target_is_directory=True)
    items = open_shards(f"{shards}/**/*.tar", asked).items()
    assert [item.id for item in items] == ["d-00/0001", "d-01/0001", "d-01/x/2"]


def test_what_is_wrong_is_said(shards, asked, read):
    write_tar(shards / "e.tar", {"1.cls": b"3", "2.json": b"{torn", "2.png": b""})
    first, second = open_shards(str(shards / "e.tar"), asked).items()
    with pytest.raises(ImageError, match="1: has no picture, only cls"):
        read(first)
    with pytest.raises(ValueError, match=r"e\.tar: a file in it is no JSON"):
        read(second, "boxes")
    (shards / "f.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UsageError, match=r"f\.tar: is no whole tar file"):
        list(open_shards(str(shards / "f.tar"), asked).items())
    with pytest.raises(UsageError, match="no such shard"):
        open_shards(str(shards / "g-*.tar"), asked)
    (shards / "b").mkdir()
    (shards / "b" / "d-00.tar").write_bytes(b"")
    with pytest.raises(UsageError, match="two shards are called 'd-00'"):
        open_shards(f"{shards}/**/d-00.tar", asked)
    assert open_shards("photos", asked) is None


def test_a_tar_that_is_cut_short_or_damaged_is_not_taken_for_a_whole_one(tmp_path, asked, picture):
    path = tmp_path / "d.tar"
    write_tar(path, {f"{n}.png": picture(8) for n in (1, 2, 3)})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        end = archive.getmembers()[2].offset
    path.write_bytes(whole[:end])
    with pytest.warns(FileWarning, match=r"d\.tar: has no mark at its end, so perhaps not all"):
        assert [item.id for item in open_shards(str(path), asked).items()] == ["d/1", "d/2"]
    for torn in (whole[: end + 100], whole[:end] + b"x" * 512):
        path.write_bytes(torn)
        items = open_shards(str(path), asked).items()
        assert next(items).id == "d/1"
        with pytest.raises(UsageError, match=rf"at byte {end} is no file in it\. Fetch it again"):
            next(items)  # nobody knows whether the second one lacks a file


def test_a_sample_that_lacks_what_is_required_fails_alone(shards, asked, read, plugins):
    document = {**BOXES, "inputs": {**BOXES["inputs"], "boxes": {"kind": BOXES_KIND}}}
    asked = replace(asked, pipeline=plugins.load_pipeline(document))
    first, second, third = open_shards(str(shards / "d-*.tar"), asked).items()
    assert [len(read(item, "boxes")) for item in (first, second)] == [1, 1]
    with pytest.raises(ValueError, match=r"x/2: has no file boxes\.json, nor 'boxes' .* cls, png"):
        read(third, "boxes")
    given = replace(asked, settings={"boxes": []})
    assert "boxes" not in [*open_shards(str(shards / "d-*.tar"), given).items()][2].inputs


def test_ranges_keep_their_zeros():
    assert expand_range("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand_range("{0..1}-{0..1}") == ["0-0", "0-1", "1-0", "1-1"]

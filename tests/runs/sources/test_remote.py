from __future__ import annotations

import zipfile

import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.runs.sources.remote import open_remote


@pytest.fixture
def bucket(memory, picture):
    names = ("in/10.png", "in/2.png", "in/deep/x.png", "in/.hidden/y.png", "in/a.txt")
    for width, name in enumerate(names, start=8):
        memory.pipe_file(f"/{name}", picture(width))
    return memory


def ids(source):
    return [item.id for item in source.items()]


def test_a_folder_is_searched_deeply_in_natural_order(bucket, asked, read):
    source = open_remote("memory://in", asked)
    assert ids(source) == ["2.png", "10.png", "deep/x.png"]
    assert [read(item).hw[1] for item in source.items()] == [9, 8, 10]
    assert (source.alone, source.identity) == (False, "memory://in")
    assert next(source.items()).source == "memory:///in/2.png"


def test_patterns_and_single_files(bucket, asked, read):
    assert ids(open_remote("memory://in/**/*.png", asked))[-1] == "deep/x.png"
    assert ids(open_remote("memory://in/*.png", asked)) == ["2.png", "10.png"]
    source = open_remote("memory://in/deep/x.png", asked)
    assert (ids(source), source.alone) == (["x.png"], True)
    assert read(next(source.items())).hw == (6, 10)


def test_archives_are_read_through_chained_urls(tmp_path, asked, picture, read):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("deep/a.png", picture(12))
    for url in ("zip://**/*.png", "zip://", "simplecache::zip://**/*.png"):
        (item,) = open_remote(f"{url}::file://{tmp_path}/all.zip", asked).items()
        assert (item.id, read(item).hw) == ("deep/a.png", (6, 12))
        assert item.source == f"zip://deep/a.png::file://{tmp_path}/all.zip"
        (again,) = open_remote(item.source, asked).items()
        assert read(again).hw == (6, 12)


def test_a_stamp_tells_when_a_picture_changed(bucket, asked, picture):
    source = open_remote("memory://in", asked)
    before = [item.stamp for item in source.items()]
    bucket.pipe_file("/in/2.png", picture(30))
    after = [item.stamp for item in source.items()]
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_a_web_address_is_one_picture(asked):
    source = open_remote("https://example.com/photos/a%20b.jpg?size=2", asked)
    assert (ids(source), source.alone, source.total) == (["a b.jpg"], True, 1)


def test_what_is_not_there_is_named(memory, asked):
    with pytest.raises(UsageError, match=r"memory://nothing: no such file, .*Check the URL"):
        open_remote("memory://nothing", asked)
    with pytest.raises(
        UsageError, match=r"Protocol not known.*Give a path, or a URL that fsspec knows"
    ):
        open_remote("s5://bucket/x", asked)
    assert open_remote("photos/*.jpg", asked) is None


def test_an_archive_that_is_none_is_named(tmp_path, asked):
    (tmp_path / "no.zip").write_text("no archive")
    for url, said in (
        (f"zip://*.png::{tmp_path}/no.zip", r"no\.zip: cannot be opened: BadZipFile"),
        (f"zip://*.png::{tmp_path}/gone.zip", r"gone\.zip: cannot be opened: FileNotFoundError"),
        (f"zip://{tmp_path}", r"cannot be opened: .*zip://NAME::ARCHIVE\.zip"),
    ):
        with pytest.raises(UsageError, match=said):
            open_remote(url, asked)

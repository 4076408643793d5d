from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.runs.sources.lists import PictureList, open_list


@pytest.fixture
def listed(tmp_path, picture):
    """A list beside a folder of pictures, with an empty line and a picture that is not there."""
    (tmp_path / "in").mkdir()
    for width, name in enumerate(("a.png", "b b.png"), start=8):
        (tmp_path / "in" / name).write_bytes(picture(width))
    path = tmp_path / "all.txt"
    path.write_text("in/a.png\n\n  in/b b.png  \nin/gone.png\n")
    return path


def test_a_line_is_a_picture_relative_to_the_list(listed, asked, read):
    source = open_list(str(listed), asked)
    items = list(source.items())
    assert [item.id for item in items] == ["in/a.png", "in/b b.png", "in/gone.png"]
    assert source.total == 3
    assert [read(item).hw for item in items[:2]] == [(6, 8), (6, 9)]
    assert items[0].source == str(listed.parent / "in" / "a.png")
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        read(items[2])


def test_a_stamp_tells_when_a_picture_changed(listed, asked, picture):
    source = PictureList(str(listed), asked)
    before = [item.stamp for item in source.items()]
    (listed.parent / "in" / "a.png").write_bytes(picture(20))
    after = [item.stamp for item in source.items()]
    assert before[0] != after[0]
    assert before[1:] == after[1:]
    assert after[2] == ""


def test_urls_and_absolute_paths_stand_for_themselves(tmp_path, asked, picture, memory, read):
    memory.pipe_file("/in/x.png", picture(9))
    (tmp_path / "y.png").write_bytes(picture(10))
    (tmp_path / "all.lst").write_text(f"memory://in/x.png\n{tmp_path / 'y.png'}\n")
    items = list(open_list(str(tmp_path / "all.lst"), asked).items())
    assert [read(item).hw[1] for item in items] == [9, 10]
    assert items[0].id == "memory://in/x.png"


def test_standard_input_is_kept_so_that_it_is_listed_twice(monkeypatch, listed, asked):
    monkeypatch.chdir(listed.parent)
    stream = SimpleNamespace(buffer=io.BytesIO(b"in/a.png\nin/b b.png\n"))
    monkeypatch.setattr("sys.stdin", stream)
    source = open_list("-", asked)
    assert [item.id for item in source.items()] == ["in/a.png", "in/b b.png"]
    assert [item.id for item in source.items()] == ["in/a.png", "in/b b.png"]
    assert source.identity == "standard input"


def test_an_empty_list_is_refused_and_other_texts_are_none(tmp_path, asked, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(UsageError, match="standard input: the list is empty"):
        open_list("-", asked)
    (tmp_path / "none.txt").write_text("\n  \n")
    with pytest.raises(UsageError, match=r"none\.txt: the list is empty; give a path or URL"):
        open_list(str(tmp_path / "none.txt"), asked)
    assert open_list("photos/*.jpg", asked) is None
    assert open_list("gone.txt", asked) is None

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from sam2_blocks.files import atomic
from sam2_blocks.files.atomic import (
    LONGEST_NAME,
    json_text,
    shorten,
    unfinished_path,
    write_atomically,
    write_text,
)


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    def encode(file):
        raise OSError("encoder error -2 when writing image file")

    with pytest.raises(OSError, match=r"^encoder error -2 when writing image file$"):
        write_atomically(tmp_path / "picture.png", encode)
    assert os.listdir(tmp_path) == []


def test_an_error_with_a_number_names_the_file(tmp_path):
    def fill(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*picture.png'"):
        write_atomically(tmp_path / "picture.png", fill)


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    assert len(os.fsencode(path.name)) == LONGEST_NAME
    write_atomically(path, lambda file: None)
    unfinished_path(path).write_text("")
    assert len(os.listdir(tmp_path)) == 2


def test_longer_names_are_cut_and_stay_apart():
    long = "日" * 100
    paths = {shorten(PurePosixPath("a", f"{long}{end}.json")) for end in ("", "1", "2")}
    assert len(paths) == 3
    for path in paths:
        assert path.parts[0] == "a"
        assert path.name.endswith(".json")
        assert len(os.fsencode(path.name)) <= LONGEST_NAME
    assert shorten(PurePosixPath("b/c.json")) == PurePosixPath("b/c.json")


def test_numpy_s_numbers_are_numbers_in_json():
    value = {"a": np.float32(2.5), "b": [np.int64(3), np.bool_(True)], "c": np.arange(2)}
    assert json.loads(json_text(value)) == {"a": 2.5, "b": [3, True], "c": [0, 1]}
    assert json.loads(json_text([np.float64("nan"), np.float32("inf"), Path("a")])) == [
        None,
        None,
        "a",
    ]


@pytest.mark.parametrize("name", ["taken/a.json", "taken/deep/a.json", "folder"])
def test_what_is_in_the_way_of_a_file_or_its_folder_is_named(tmp_path, name):
    (tmp_path / "taken").write_text("of somebody else")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=rf"a file and a folder would be in one place.*{name}'$"):
        write_text(tmp_path / name, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken"]
    assert (tmp_path / "taken").read_text() == "of somebody else"


def test_what_is_half_written_is_abandoned_and_nothing_more_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_abandoned", False)
    write_text(tmp_path / "whole", "whole")

    def write(file):
        file.write(b"half")
        file.flush()
        assert len(os.listdir(tmp_path)) == 2
        atomic.abandon()
        assert os.listdir(tmp_path) == ["whole"]

    with pytest.raises(OSError, match="No such file"):  # it cannot come to its place any more
        atomic.write_atomically(tmp_path / "half", write)
    with pytest.raises(InterruptedError, match="the process is about to end"):
        write_text(tmp_path / "late", "late")
    assert os.listdir(tmp_path) == ["whole"]

from __future__ import annotations

import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.runs.sources.folder import find_pictures


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b/c.PNG", "b/notes.txt", "._a.jpg", ".cache/d.jpg", "out/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_a_folder_is_searched_deeply_but_not_for_hidden_files(folder):
    assert list(find_pictures(str(folder))) == ["a.jpg", "b/c.PNG", "out/e.jpg"]


def test_pictures_of_a_glob_are_named_below_its_part_without_wildcards(folder):
    assert list(find_pictures(f"{folder}/*/*.[jP]*")) == ["b/c.PNG", "out/e.jpg"]
    assert list(find_pictures(f"{folder}/out/*.jpg")) == ["e.jpg"]


def test_results_are_no_inputs(folder):
    assert list(find_pictures(str(folder), folder / "out")) == ["a.jpg", "b/c.PNG"]


@pytest.mark.parametrize("source", ["", "/*.jpg"])
def test_an_output_folder_with_all_the_pictures_is_named(folder, source):
    with pytest.raises(UsageError, match="all pictures there are in the output folder"):
        find_pictures(f"{folder}{source}", folder)


def test_nothing_is_an_error(folder):
    with pytest.raises(UsageError, match="no such file, folder or match"):
        find_pictures(f"{folder}/*.gif")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="the folder holds no picture; looked for"):
        find_pictures(str(folder / "empty"))

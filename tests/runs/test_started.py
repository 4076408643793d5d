from __future__ import annotations

import pytest

from sam2_blocks.files.claims import STARTED_FILE
from sam2_blocks.files.json_lines import read_json_lines
from sam2_blocks.runs import started
from sam2_blocks.runs.started import StartedFiles


@pytest.fixture
def files(tmp_path):
    found = StartedFiles(tmp_path)
    found.start()
    yield found
    found.close()


def test_files_of_items_that_are_not_finished_are_known_after_a_crash(files, tmp_path):
    files.add("a", "labels/a.txt")
    files.add("b", "b.png")
    files.add("a", "a.png")
    assert StartedFiles(tmp_path).left() == {"a": ["labels/a.txt", "a.png"], "b": ["b.png"]}


def test_nothing_is_left_of_a_run_whose_items_are_all_noted(files, tmp_path):
    files.add("a", "a.png")
    files.forget("a")
    files.close()
    assert not (tmp_path / STARTED_FILE).exists()


def test_the_notes_stay_few(files, tmp_path, monkeypatch):
    monkeypatch.setattr(started, "MOST_LINES", 10)
    for number in range(100):
        files.add(str(number), "x")
        files.forget(str(number))
    files.add("last", "y")
    assert len(read_json_lines(tmp_path / STARTED_FILE)) <= 10
    assert StartedFiles(tmp_path).left()["last"] == ["y"]


def test_what_was_torn_is_removed_and_nothing_else(files, tmp_path):
    files.add("a", "labels/a.txt")
    torn, other = (
        tmp_path / "labels" / name for name in (".a.txt.0123abcd.part", ".b.txt.0123abcd.part")
    )
    grown = tmp_path / "labels" / "..a.txt.part.0123abcd.part"
    torn.parent.mkdir()
    for path in (torn, grown, other):
        path.write_text("half")
    again = StartedFiles(tmp_path)
    again.start()
    again.close()
    assert [path.exists() for path in (torn, grown, other)] == [False, False, True]


def test_a_note_that_is_none_is_left_alone(tmp_path):
    (tmp_path / STARTED_FILE).write_text('["a", "x"]\n{"b": 1}\n["c"]\n[1, 2]\n["d", "')
    assert StartedFiles(tmp_path).left() == {"a": ["x"]}

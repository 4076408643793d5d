from __future__ import annotations

from contextlib import contextmanager

import pytest

from sam2_blocks.files.json_lines import JsonLines, read_json_lines


def test_what_is_added_can_be_read_while_the_file_is_open(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl", [{"first": 1}])
    lines.append(["é", None])
    assert read_json_lines(tmp_path / "a.jsonl") == [{"first": 1}, ["é", None]]
    lines.close()


def test_what_the_file_held_before_is_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\n")
    JsonLines(tmp_path / "a.jsonl", [3]).close()
    assert read_json_lines(tmp_path / "a.jsonl") == [3]


@pytest.mark.parametrize("torn", ["[4, 5", "\x00\x00", "{"])
def test_a_line_that_a_crash_tore_is_left_out(tmp_path, torn):
    (tmp_path / "a.jsonl").write_text(f"1\n{torn}\n2\n")
    assert read_json_lines(tmp_path / "a.jsonl") == [1, 2]


def test_no_file_has_no_values(tmp_path):
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_a_folder_that_is_not_there_cannot_be_written_in(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        JsonLines(tmp_path / "file" / "a.jsonl")


@contextmanager
def room_for(size):
    """No file may grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_finds_no_room_leaves_no_part_and_those_after_it_have_their_places(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl", ["first"])
    with room_for(50), pytest.raises(OSError, match="File too large"):
        lines.append("long" * 100)
    places = [*lines.places, lines.append("second"), lines.append("third")]
    assert list(lines.read(places)) == ["first", "second", "third"]
    lines.close()
    assert (tmp_path / "a.jsonl").read_text() == '"first"\n"second"\n"third"\n'


def test_a_file_that_found_no_room_can_be_closed(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl")
    with room_for(50):
        with pytest.raises(OSError, match="File too large"):
            lines.append("long" * 100)
        lines.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b""

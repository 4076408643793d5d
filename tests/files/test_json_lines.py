from __future__ import annotations

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

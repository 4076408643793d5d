from __future__ import annotations

import pytest

from sam2_blocks.files.reading import FileStamps, file_stamp, read_json, read_text


def test_a_mark_at_the_beginning_is_no_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa9"}')
    assert read_text(tmp_path / "a.json") == '{"a": "é"}'
    assert read_json(tmp_path / "a.json") == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"\xff\xfe", "is not UTF-8 text"), (b"{", "not JSON")],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: {message}"):
        read_json(tmp_path / "a.json")


def test_files_have_the_stamps_they_had_until_they_change_come_or_go(tmp_path):
    path, gone = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text("[]")
    then = [(str(path), file_stamp(path)), (str(gone), "")]
    assert FileStamps().are(then)
    assert FileStamps().are([])
    gone.write_text("[]")
    assert not FileStamps().are(then)
    gone.unlink()
    path.write_text("[1]")
    assert not FileStamps().are(then)

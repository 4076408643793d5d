import pytest

from sam2_blocks.files.reading import read_json, read_text


def test_a_mark_at_the_beginning_is_no_text(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(file) == '{"a": 1}'
    assert read_json(file) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "a.json: no such file"), (b"\xff", "is not UTF-8 text"), (b"{", "a.json: not JSON")],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path, content, message):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(file)

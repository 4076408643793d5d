from __future__ import annotations

import pytest

from sam2_blocks.files.claims import OutputFiles


class Writer:
    """Stands for a block."""


def test_a_file_belongs_to_one_block_as_long_as_it_is_there(tmp_path):
    files, first, second = OutputFiles(tmp_path), Writer(), Writer()
    assert files.claim("a.txt", first) == tmp_path / "a.txt"
    assert files.claim("a.txt", first) == tmp_path / "a.txt"
    with pytest.raises(ValueError, match="another step or output writes"):
        files.claim("deep/../a.txt", second)
    del first
    assert files.claim("a.txt", second) == tmp_path / "a.txt"


def test_files_are_known_by_the_item_they_are_for(tmp_path):
    files, block = OutputFiles(tmp_path), Writer()
    files.claim("a.txt", block, "a.png")
    files.claim("all.json", block)
    files.claim("all.json", block)
    assert files.of_item("a.png") == [tmp_path / "a.txt"]
    assert files.of_all() == {tmp_path / "all.json": "Writer"}
    assert files.of_item("b.png") == []


@pytest.mark.parametrize("path", ["../a.txt", "/etc/a.txt", "deep/../../a.txt"])
def test_a_file_outside_the_folder_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match="is not below the output folder"):
        OutputFiles(tmp_path).claim(path, Writer())


def test_the_file_of_a_finished_item_is_not_taken_for_another(tmp_path):
    files = OutputFiles(tmp_path, kept={"a.png": [tmp_path / "a.txt"]})
    with pytest.raises(ValueError, match=r"is the file of 'a\.png', which an earlier run finished"):
        files.claim("a.txt", Writer(), "a.bmp")


def test_what_a_block_wrote_before_and_has_not_taken_now_is_left_to_it(tmp_path):
    before = {tmp_path / name: "Writer" for name in ("a.json", "b.json")}
    before[tmp_path / "c.json"] = "Other"
    files = OutputFiles(tmp_path, kept={"a.png": []}, shared_before=before)
    block = Writer()
    files.claim("a.json", block)
    assert files.claim_left(block) == [tmp_path / "b.json"]
    assert files.claim_left(block) == []


def test_what_is_read_for_an_item_is_handed_over_once(tmp_path):
    files, path = OutputFiles(tmp_path), tmp_path / "a.json"
    files.note_read(path, "a.png")
    assert files.read_for("a.png") == {}
    files.keeps_reads = True
    files.note_read(path, "a.png")
    path.write_text("[]")
    files.note_read(path, "a.png")  # what it was before counts
    assert files.read_for("a.png") == {str(path): ""}
    assert files.read_for("a.png") == {}


def test_a_file_is_told_of_before_it_is_written(tmp_path):
    files, block, told = OutputFiles(tmp_path), Writer(), []
    files.on_claim = lambda item, path: told.append((item, path.name))
    for _ in range(2):
        files.claim("a.txt", block, "a.png")
        files.claim("all.json", block)
    assert told == [("a.png", "a.txt"), ("", "all.json")]

from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.resources import Resources
from sam2_blocks.testing import FakeExecutor


class Writer:
    """Stands for a block."""


def test_a_file_belongs_to_one_block_as_long_as_it_is_there(tmp_path):
    resources, first, second = Resources({}, tmp_path), Writer(), Writer()
    assert resources.claim_file("a.txt", first) == tmp_path / "a.txt"
    assert resources.claim_file("a.txt", first) == tmp_path / "a.txt"
    with pytest.raises(ValueError, match="another step writes"):
        resources.claim_file("deep/../a.txt", second)
    del first
    assert resources.claim_file("a.txt", second) == tmp_path / "a.txt"


def test_files_are_known_by_the_item_they_are_for(tmp_path):
    resources, block = Resources({}, tmp_path), Writer()
    resources.claim_file("a.txt", block, "a.png")
    resources.claim_file("all.json", block)
    resources.claim_file("all.json", block)
    assert resources.files_of("a.png") == [tmp_path / "a.txt"]
    assert resources.shared_files() == {tmp_path / "all.json": "Writer"}
    assert resources.files_of("b.png") == []


@pytest.mark.parametrize("path", ["../a.txt", "/etc/a.txt", "deep/../../a.txt"])
def test_a_file_outside_the_folder_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match="is not below the output folder"):
        Resources({}, tmp_path).claim_file(path, Writer())


def test_strangers_name_models_but_not_files():
    resources = Resources({"sam2": FakeExecutor}, local_models=False)
    assert resources.executor("nano").spec.model == "nano"
    for path in ("/srv/secret.pt", "mine.safetensors", "mine.pt/", "mine.pt/."):
        with pytest.raises(ModelError, match=r"is a file, .* SAM2_BLOCKS_LOCAL_MODELS=1"):
            resources.executor(path)
    assert Resources({"sam2": FakeExecutor}).executor("mine.pt").spec.model == "mine.pt"


def test_the_file_of_a_finished_item_is_not_taken_for_another(tmp_path):
    resources = Resources({}, tmp_path, kept={"a.png": [tmp_path / "a.txt"]})
    with pytest.raises(ValueError, match=r"is the file of 'a\.png', which an earlier run finished"):
        resources.claim_file("a.txt", Writer(), "a.bmp")


def test_what_a_block_wrote_before_and_has_not_taken_now_is_left_to_it(tmp_path):
    before = {tmp_path / name: "Writer" for name in ("a.json", "b.json")}
    before[tmp_path / "c.json"] = "Other"
    resources = Resources({}, tmp_path, kept={"a.png": []}, shared_before=before)
    block = Writer()
    resources.claim_file("a.json", block)
    assert resources.left_files(block) == [tmp_path / "b.json"]
    assert resources.left_files(block) == []

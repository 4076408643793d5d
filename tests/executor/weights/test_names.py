from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.names import (
    HubName,
    find_folder_problem,
    find_problem,
    folder_problem,
    is_hub_name,
    is_path,
    read_name,
)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """A current folder with a model in it."""
    (tmp_path / "owner" / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("owner/there", Path("owner/there")),
        ("owner/other", HubName("owner/other")),
        ("owner/other@v1.0", HubName("owner/other", "v1.0")),
        ("owner/other@refs/pr/7", HubName("owner/other", "refs/pr/7")),
        ("hub:owner/there", HubName("owner/there")),
        ("hub:owner/there@main", HubName("owner/there", "main")),
        ("./owner/other", Path("owner/other")),
        ("../mine", Path("../mine")),
        ("/somewhere/else", Path("/somewhere/else")),
        ("owner/weights.safetensors", Path("owner/weights.safetensors")),
        ("my.pt", Path("my.pt")),
    ],
)
def test_a_name_is_a_path_if_something_is_there_and_else_of_the_hub(name, meant):
    assert read_name(name) == meant
    assert is_path(name) == isinstance(meant, Path)
    assert is_hub_name(name) == isinstance(meant, HubName)


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read_name("~/model") == Path("/home/me/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alone", "there is no model 'alone': it is in no catalogue"),
        ("a/b/c", "it is not 'owner/name' of the hub"),
        ("owner/na me", "it is not 'owner/name' of the hub"),
        ("owner/other@", "it is not 'owner/name' of the hub"),
        ("hub:alone", "names no repository of the hub: expected 'hub:owner/name'"),
        ("hub:../secret/file", "names no repository of the hub"),
    ],
)
def test_what_means_nothing_is_refused(name, message):
    with pytest.raises(ModelError, match=message):
        read_name(name)
    assert not is_hub_name(name)
    assert message in find_problem(name)


def test_a_repository_has_no_problem_before_it_is_asked_for():
    assert find_problem("owner/other") == find_folder_problem("owner/other") == ""


def test_a_path_without_anything_is_a_problem(tmp_path):
    assert find_problem("./nothing") == "there is no file or folder nothing."
    assert find_problem("owner/there") == ""


def test_folders_of_the_library_have_a_configuration(tmp_path):
    there = tmp_path / "owner" / "there"
    assert "has no config.json. Expected a folder that save_pretrained()" in folder_problem(there)
    (there / "config.json").write_text("{}")
    assert folder_problem(there) == find_folder_problem("owner/there") == ""
    assert "is a file" in folder_problem(there / "config.json")
    assert "there is no folder" in folder_problem(there / "deeper")


def test_a_revision_of_a_folder_is_refused(tmp_path):
    there = tmp_path / "owner" / "there"
    assert "revision 'v1' goes with a repository" in folder_problem(Path(f"{there}@v1"))


def test_a_repository_wants_the_library_of_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'sam2-blocks[hub]'" in find_problem("owner/other")
    assert find_problem("./owner/there") == ""


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_not_the_current_folder(name):
    assert not is_path(name)
    assert find_problem(name).startswith(f"there is no model {name!r}")
    assert find_folder_problem(name) == find_problem(name)

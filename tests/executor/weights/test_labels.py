from __future__ import annotations

import json

import pytest

from sam2_blocks.executor.weights.labels import classes_of

CONFIG = {"id2label": {"1": "dog", "0": "cat", "10": "person"}}


def write(folder, config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(folder)


def test_a_folder_names_its_classes_by_number(tmp_path):
    assert classes_of(write(tmp_path / "model", CONFIG)) == ("cat", "dog", "person")


def test_the_cache_of_the_hub_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--owner--tiny"
    write(place / "snapshots" / "abc", CONFIG)
    write(place / "snapshots" / "def", {"id2label": {"0": "cup"}})
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    assert classes_of("owner/tiny") == classes_of("hub:owner/tiny") == ("cat", "dog", "person")
    assert classes_of("owner/tiny@def") == ("cup",)
    assert classes_of("owner/tiny@other") == ()
    assert classes_of("owner/none") == ()


@pytest.mark.parametrize(
    "config", ["{", "[]", "{}", {"id2label": ["cat"]}, {"id2label": {"a": "b"}}, {"id2label": None}]
)
def test_what_names_no_classes_is_left_to_loading(tmp_path, config):
    assert classes_of(write(tmp_path / "model", config)) == ()


@pytest.mark.parametrize("name", ["./nothing", "nothing", "a\0b", "hub:nothing"])
def test_what_is_not_there_is_left_to_loading(name):
    assert classes_of(name) == ()

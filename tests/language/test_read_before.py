"""Manifests that were read before are what their YAML says, and those that changed are read."""

from __future__ import annotations

import pytest

from sam2_blocks.errors import ManifestError
from sam2_blocks.kinds import BUILTIN_KINDS
from sam2_blocks.language import manifest as module
from sam2_blocks.language import read_before as before
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.manifest import iter_yaml_files, load_manifest, manifest_dir

KINDS = {kind.name: kind for kind in BUILTIN_KINDS}


@pytest.fixture
def forgetful():
    before._entries.cache_clear()
    yield
    before._entries.cache_clear()


@pytest.mark.parametrize("file", [*iter_yaml_files(manifest_dir())], ids=lambda file: file.stem)
def test_a_built_in_manifest_is_what_its_yaml_says(file, monkeypatch):
    text = file.read_text()
    known = before.read_before(text)
    assert known is not None
    assert known["manifest"] == parse_yaml(text).data
    changed = f"{text}# a remark\n"
    assert before.read_before(changed) is None
    expected = load_manifest(changed, file.name, KINDS)
    monkeypatch.setattr(module, "parse_yaml", lambda *_: pytest.fail("read again"))
    assert load_manifest(text, file.name, KINDS) == expected


def test_a_kind_that_is_missing_is_said_as_always():
    text = (manifest_dir() / "sam2_segment.yaml").read_text()
    with pytest.raises(ManifestError, match=r"unknown kind 'image'"):
        load_manifest(text, "sam2_segment.yaml", {})


def test_without_the_file_all_is_read_as_yaml(forgetful, monkeypatch):
    monkeypatch.setattr(before, "FILE_NAME", "no such file")
    text = (manifest_dir() / "sam2_embed.yaml").read_text()
    assert before.read_before(text) is None
    assert load_manifest(text, "sam2_embed.yaml", KINDS).id == "sam2/embed@v1"

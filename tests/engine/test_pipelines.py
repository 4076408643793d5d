"""Folders of pipelines whose files are blocks."""

from __future__ import annotations

import os

import pytest

from sam2_blocks import PluginError, load_plugins
from sam2_blocks.engine.pipelines import SWITCH

BEST = """\
pipeline_version: 1
inputs: {boxes: {kind: object_detection_prediction}}
steps:
  keep: {use: detections/filter@v1, with: {detections: $inputs.boxes, max_count: 1}}
outputs: {boxes: $steps.keep.detections}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load plugins with folders of files: ``load({folder/file: text}, strict=…)``."""
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")

    def run(files, **options):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        folders = dict.fromkeys(str((tmp_path / name).parent) for name in files)
        monkeypatch.setenv(SWITCH, os.pathsep.join(folders))
        return load_plugins(**options)

    return run


def test_files_are_blocks_with_versions(load):
    plugins = load({"a/best.yaml": BEST, "a/best@v2.yaml": BEST, "b/other.yml": BEST})
    found = [name for name in plugins.manifests if name.startswith("pipelines/")]
    assert sorted(found) == ["pipelines/best@v1", "pipelines/best@v2", "pipelines/other@v1"]


def test_a_block_that_is_a_pipeline_becomes_its_steps(load):
    plugins = load({"a/best.yaml": BEST})
    document = {
        "pipeline_version": 1,
        "inputs": {"boxes": {"kind": "object_detection_prediction"}},
        "steps": {"one": {"use": "pipelines/best@v1", "with": {"boxes": "$inputs.boxes"}}},
        "outputs": {"boxes": "$steps.one.boxes"},
    }
    assert [step.id for step in plugins.load_pipeline(document).steps] == ["one.keep"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a/Best.yaml", BEST, "a pipeline that is a block is called in small letters"),
        ("a/best.yaml", BEST.replace("max_count", "max_cont"), "Did you mean 'max_count'?"),
    ],
)
def test_a_folder_that_is_wrong_stops_no_other(load, file, text, message):
    files = {file: text, "b/good.yaml": BEST}
    plugins = load(files)
    assert [name for name in plugins.manifests if "pipelines/" in name] == ["pipelines/good@v1"]
    [broken] = [record for record in plugins.records if record.error]
    assert message in broken.error
    with pytest.raises(PluginError, match="pipelines in "):
        load(files, strict=True)


def test_a_folder_that_is_not_there_says_so(monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setenv(SWITCH, "/no/such/folder")
    with pytest.raises(PluginError, match="'/no/such/folder' is no folder of pipelines"):
        load_plugins(strict=True)

"""Seeded models of rfdetr: the block gives what their own ``predict`` gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sam2_blocks_rfdetr.model import load

from sam2_blocks import Item, ModelError, PipelineError, Runner
from sam2_blocks.testing import check_block, run_block

DETECTOR, SEGMENTER = "RFDETRNano", "RFDETRSegNano"


def detect(plugins, pictures, **params):
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {
                "detect": {
                    "use": "rfdetr/detect@v1",
                    "with": {"image": "$inputs.image", "device": "cpu", **params},
                }
            },
            "outputs": {"detections": "$steps.detect.detections"},
        }
    )
    with Runner(pipeline, plugins) as runner:
        results = list(runner.run([Item(image.id, {"image": image}) for image in pictures]))
    for result in results:
        if result.errors:
            raise ValueError(result.errors[0].message)
    return [result.outputs["detections"] for result in results]


@pytest.mark.parametrize("name", [DETECTOR, SEGMENTER])
def test_what_is_found_is_what_their_own_predict_finds(plugins, checkpoint, pictures, name):
    from rfdetr import RFDETR

    file = checkpoint(name)
    by_hand = RFDETR.from_checkpoint(file, device="cpu")
    theirs = by_hand.predict([image.pixels for image in pictures], threshold=0.005)
    ours = detect(plugins, pictures, model=file, threshold=0.005)
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) > 1
        order = np.argsort(-expected.confidence, kind="stable")
        np.testing.assert_array_equal(found.xyxy, expected.xyxy[order])
        np.testing.assert_array_equal(found.confidence, expected.confidence[order])
        assert list(found.data["class_name"]) == list(expected.data["class_name"][order])
        if name == SEGMENTER:
            np.testing.assert_array_equal(np.array(list(found.mask)), expected.mask[order])


def test_classes_and_max_count_choose(plugins, checkpoint, pictures):
    asked = {"model": checkpoint(DETECTOR), "threshold": 0.005}
    [everything] = detect(plugins, pictures[:1], **asked)
    name = str(everything.data["class_name"][0])
    [some] = detect(plugins, pictures[:1], classes=[name], **asked)
    assert set(some.data["class_name"]) == {name}
    [one] = detect(plugins, pictures[:1], max_count=1, **asked)
    np.testing.assert_array_equal(one.confidence, everything.confidence[:1])


def test_nothing_found_is_typed_and_empty(plugins, checkpoint, pictures):
    [found] = detect(plugins, pictures[:1], model=checkpoint(DETECTOR), threshold=1)
    assert found.xyxy.shape == (0, 4)
    assert (found.confidence.dtype, found.class_id.dtype) == (np.float32, np.int64)
    assert found.data["class_name"].dtype.kind == "U"


def test_an_unknown_class_gets_the_nearest_name(plugins, checkpoint, pictures):
    with pytest.raises(ValueError, match=r"knows no class 'persn'\. Did you mean 'person'\?"):
        detect(plugins, pictures, model=checkpoint(DETECTOR), classes=["persn"])


def test_a_file_that_is_not_there_is_found_before_the_run(plugins):
    with pytest.raises(PipelineError, match=r"there is no file 'best\.pth'\. Give the path"):
        detect(plugins, [], model="best.pth")


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"rfdetr cannot load '.*broken\.pth'"):
        load(str(tmp_path / "broken.pth"))


def test_strangers_name_no_files(plugins, tmp_path):
    with pytest.raises(ModelError, match="is a file, which whoever writes a workflow may not"):
        plugins.resources(tmp_path, local_models=False).loaded("rfdetr:best.pth")


def test_boxes_become_masks(plugins, checkpoint, pictures):
    asked = {"model": checkpoint(DETECTOR), "threshold": 0.005, "max_count": 2}
    [found] = detect(plugins, pictures[:1], **asked)
    inputs = {"image": pictures[0], "boxes": found}
    made = run_block("sam2/segment@v1", inputs, plugins=plugins).outputs["predictions"]
    assert list(made.data["class_name"]) == list(found.data["class_name"])


def test_the_examples_of_the_manifest_run(plugins, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint_best_total.pth").symlink_to(checkpoint(DETECTOR))
    check_block("rfdetr/detect@v1", plugins=plugins, resources=plugins.resources(tmp_path))


def test_the_plugin_brings_this_block_and_nothing_else(plugins):
    [record] = [record for record in plugins.records if record.name == "rfdetr"]
    assert (record.distribution, record.blocks) == ("sam2-blocks-rfdetr", ("rfdetr/detect@v1",))


def test_loading_the_plugin_imports_nothing_of_rfdetr():
    code = "import sys, sam2_blocks_rfdetr; sys.exit('rfdetr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

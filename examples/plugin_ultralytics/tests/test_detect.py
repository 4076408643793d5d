"""Seeded models of Ultralytics: the block gives what their own ``predict`` gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import NAMES
from sam2_blocks_ultralytics.model import load

from sam2_blocks import Item, ModelError, PipelineError, Runner
from sam2_blocks.testing import check_block, run_block

DETECTOR, SEGMENTER = "yolo11n.yaml", "yolo11n-seg.yaml"


def detect(plugins, pictures, **params):
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {
                "detect": {
                    "use": "ultralytics/detect@v1",
                    "with": {"image": "$inputs.image", "size_px": 64, "threshold": 0.1, **params},
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


def by_hand(file, images, **options):
    import ultralytics

    bgr = [np.ascontiguousarray(image.pixels[..., ::-1]) for image in images]
    asked = {"imgsz": 64, "conf": 0.1, "verbose": False, "device": "cpu", **options}
    return ultralytics.YOLO(file).predict(bgr, batch=len(bgr), **asked)


@pytest.mark.parametrize("configuration", [DETECTOR, "yolov8n.yaml", "yolo26n.yaml"])
def test_boxes_are_those_of_their_own_predict(plugins, model_file, pictures, configuration):
    file = model_file(configuration)
    for found, theirs in zip(
        detect(plugins, pictures, model=file), by_hand(file, pictures), strict=True
    ):
        assert len(found) > 1
        np.testing.assert_array_equal(found.xyxy, theirs.boxes.xyxy.numpy())
        np.testing.assert_array_equal(found.confidence, theirs.boxes.conf.numpy())
        np.testing.assert_array_equal(found.class_id, theirs.boxes.cls.numpy().astype(int))
        assert list(found.data["class_name"]) == [NAMES[i] for i in found.class_id]


def test_masks_of_a_segmenter_arrive_in_the_size_of_the_picture(plugins, model_file, pictures):
    file = model_file(SEGMENTER)
    [found] = detect(plugins, pictures[:1], model=file, nms_iou=0.99)
    [theirs] = by_hand(file, pictures[:1], iou=0.99, retina_masks=True)
    assert len(found) > 1
    masks = np.array(list(found.mask))
    np.testing.assert_array_equal(masks, theirs.masks.data.numpy().astype(bool))
    assert masks.shape[1:] == pictures[0].hw


def test_classes_and_max_count_choose(plugins, model_file, pictures):
    file = model_file(DETECTOR)
    [everything] = detect(plugins, pictures[:1], model=file)
    [dogs] = detect(plugins, pictures[:1], model=file, classes=["dog"])
    assert 0 < len(dogs) < len(everything)
    assert set(dogs.data["class_name"]) == {"dog"}
    [one] = detect(plugins, pictures[:1], model=file, max_count=1)
    np.testing.assert_array_equal(one.confidence, everything.confidence[:1])


@pytest.mark.parametrize("configuration", [DETECTOR, SEGMENTER])
def test_nothing_found_is_typed_and_empty(plugins, model_file, pictures, configuration):
    [found] = detect(plugins, pictures[:1], model=model_file(configuration), threshold=1)
    assert found.xyxy.shape == (0, 4)
    assert (found.confidence.dtype, found.class_id.dtype) == (np.float32, np.int64)
    assert found.data["class_name"].dtype.kind == "U"


def test_an_unknown_class_gets_the_nearest_name(plugins, model_file, pictures):
    with pytest.raises(ValueError, match=r"knows no class 'persn'\. Did you mean 'person'\?"):
        detect(plugins, pictures, model=model_file(DETECTOR), classes=["persn"])


@pytest.mark.parametrize("name", ["weights/best.pt", "best.onnx", "./yolo11n.pt"])
def test_a_file_that_is_not_there_is_found_before_the_run(plugins, name):
    with pytest.raises(PipelineError, match=r"there is no file '.*'\. Give a path that starts"):
        detect(plugins, [], model=name)


def test_offline_is_offline(plugins, monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    with pytest.raises(PipelineError, match=r"'yolo11n\.pt' would be downloaded, and SAM2_BLOCKS"):
        detect(plugins, [], model="yolo11n.pt")
    with pytest.raises(ModelError, match="would be downloaded"):
        load("yolo11n.pt")


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"Ultralytics cannot load '.*broken\.pt'"):
        load(str(tmp_path / "broken.pt"))


def test_a_classifier_is_refused(model_file):
    with pytest.raises(ModelError, match="is a model for the task 'classify', which finds no box"):
        load(model_file("yolo11n-cls.yaml"))


def test_strangers_name_no_files(plugins, tmp_path):
    with pytest.raises(ModelError, match="is a file, which whoever writes a workflow may not"):
        plugins.resources(tmp_path, local_models=False).loaded("ultralytics:yolo11n.pt")


def test_boxes_become_masks(plugins, model_file, pictures):
    [found] = detect(plugins, pictures[:1], model=model_file(DETECTOR), max_count=2)
    result = run_block(
        "sam2/segment@v1", {"image": pictures[0], "boxes": found}, plugins=plugins
    ).outputs["predictions"]
    assert list(result.data["class_name"]) == list(found.data["class_name"])


def test_the_examples_of_the_manifest_run(plugins, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").symlink_to(model_file(DETECTOR))
    check_block("ultralytics/detect@v1", plugins=plugins, resources=plugins.resources(tmp_path))


def test_the_plugin_brings_this_block_and_nothing_else(plugins):
    [record] = [record for record in plugins.records if record.name == "ultralytics"]
    assert (record.distribution, record.blocks) == (
        "sam2-blocks-ultralytics",
        ("ultralytics/detect@v1",),
    )


def test_loading_the_plugin_imports_nothing_of_ultralytics():
    code = "import sys, sam2_blocks_ultralytics; sys.exit('ultralytics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

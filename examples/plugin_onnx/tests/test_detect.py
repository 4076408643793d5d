"""The block on models made in code, which find what is white; see ``bright``."""

from __future__ import annotations

import subprocess
import sys

import bright
import numpy as np
import onnxruntime
import pytest
from sam2_blocks_onnx import find_problem

from sam2_blocks import Image, Item, ModelError, PipelineError, Runner, StepError
from sam2_blocks.testing import check_block

BOX = (18, 9, 41, 33)
NAMES = ["cat", "dog", "person"]
LAYOUTS = ["yolov8", "yolov5", "nms", "detr", "detr in one", "boxes"]


def of(layout):
    """What a step must say of a layout that `bright` makes; each picture's box is found anyhow."""
    declared = "detr" if layout.startswith("detr") else layout
    certain = {"scores": "sigmoid"} if layout == "detr" else {}
    return {"layout": declared, "class_names": NAMES, "normalize": "none", **certain}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("hw", [(45, 60), (60, 45), (50, 50), (37, 91)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_the_box_is_found_where_it_is_in_the_picture(detect, make_picture, layout, hw, resize):
    bright.save("a.onnx", layout)
    found = detect(make_picture(BOX, hw=hw), model="a.onnx", resize=resize, **of(layout))
    box = np.minimum(BOX, [*hw[::-1], *hw[::-1]])
    np.testing.assert_allclose(found.xyxy[0], box, atol=1.5)
    assert found.data["class_name"][0] == "dog"
    assert found.class_id[0] == 1
    assert found.confidence[0] == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("layout", ["yolov8", "yolov5"])
def test_boxes_that_overlap_are_one_object(detect, make_picture, layout):
    bright.save("a.onnx", layout)
    assert len(detect(make_picture(BOX), model="a.onnx", **of(layout))) == 1
    all_of_them = detect(make_picture(BOX), model="a.onnx", nms_iou=1, **of(layout))
    assert len(all_of_them) == bright.QUERIES
    assert (np.diff(all_of_them.confidence) <= 0).all()


@pytest.mark.parametrize("layout", ["yolov8", "boxes"])
def test_small_objects_are_found_in_tiles(detect, make_picture, layout):
    small = [(20, 30, 44, 50), (300, 200, 325, 220), (170, 90, 185, 110)]
    bright.save("a.onnx", layout)
    picture = make_picture(*small, hw=(300, 400))
    whole = detect(picture, model="a.onnx", nms_iou=0.5, **of(layout))
    found = detect(
        picture, model="a.onnx", nms_iou=0.5, tile_px=128, overlap=0.3, max_count=4, **of(layout)
    )
    around = (20, 30, 325, 220)  # the network takes all that is white for one object
    np.testing.assert_allclose(whole.xyxy[0], around, atol=6)
    for box in (*small, around):
        assert np.abs(found.xyxy - box).max(axis=1).min() < 6, box
    assert (np.diff(found.confidence) <= 0).all()
    assert len(found) == 4
    assert len(detect(picture, model="a.onnx", tile_px=128, max_count=2, **of(layout))) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_white_gives_typed_empty_detections(detect, make_picture, layout):
    bright.save("a.onnx", layout)
    found = detect(make_picture(), model="a.onnx", **of(layout))
    assert found.xyxy.shape == (0, 4)
    assert (found.confidence.dtype, found.class_id.dtype) == (np.float32, np.int64)
    assert found.data["class_name"].dtype.kind == "U"


@pytest.mark.parametrize("layout", ["yolov8", "detr", "boxes", "nms"])
def test_shapes_tell_the_layout(detect, make_picture, layout):
    bright.save("a.onnx", layout)
    found = detect(make_picture(BOX), model="a.onnx", class_names=NAMES, normalize="none")
    np.testing.assert_allclose(found.xyxy[0], BOX, atol=1.5)


@pytest.mark.parametrize("batch", ["batch", 1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_pictures_of_different_sizes_are_one_batch_whatever_the_model_takes(
    plugins, tmp_path, monkeypatch, make_picture, batch, half
):
    monkeypatch.chdir(tmp_path)
    bright.save("a.onnx", "yolov8", batch=batch, half=half)
    boxes = [BOX, (2, 3, 30, 20), (10, 10, 44, 40)]
    pictures = [make_picture(box, hw=(45, 60 + 9 * i)) for i, box in enumerate(boxes)]
    results = run_step(plugins, pictures, model="a.onnx", class_names=NAMES)
    for result, box in zip(results, boxes, strict=True):
        assert result.errors == ()
        np.testing.assert_allclose(result.outputs["detections"].xyxy[0], box, atol=1.5)


def run_step(plugins, pictures, **params):
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {
                "detect": {"use": "onnx/detect@v1", "with": {"image": "$inputs.image", **params}}
            },
            "outputs": {"detections": "$steps.detect.detections"},
        }
    )
    with Runner(pipeline, plugins) as runner:
        return list(runner.run([Item(str(i), {"image": p}) for i, p in enumerate(pictures)]))


def test_a_model_that_wants_the_sizes_of_pictures_gets_those_of_its_input(detect, make_picture):
    bright.save("a.onnx", "boxes", sizes=True)
    found = detect(make_picture(BOX), model="a.onnx", class_names=NAMES)
    np.testing.assert_allclose(found.xyxy[0], BOX, atol=1.5)


def test_the_file_says_names_and_size(detect, make_picture):
    named = {"names": dict(enumerate(NAMES)), "imgsz": [64, 64], "task": "detect"}
    bright.save("a.onnx", "yolov8", shape=["batch", 3, "height", "width"], metadata=named)
    found = detect(make_picture(BOX), model="a.onnx")
    assert list(found.data["class_name"]) == ["dog"]
    np.testing.assert_allclose(found.xyxy[0], BOX, atol=1.5)


def test_classes_without_names_are_called_by_number(detect, make_picture):
    bright.save("a.onnx", "yolov8")
    assert list(detect(make_picture(BOX), model="a.onnx").data["class_name"]) == ["class_1"]


def test_classes_and_max_count_choose(detect, make_picture):
    bright.save("a.onnx", "nms")
    asked = {"model": "a.onnx", "class_names": NAMES}
    assert len(detect(make_picture(BOX), classes=["cat"], **asked)) == 0
    assert len(detect(make_picture(BOX), classes=["cat", "dog"], **asked)) == bright.QUERIES
    best = detect(make_picture(BOX), max_count=2, **asked)
    np.testing.assert_array_equal(best.confidence, bright.CERTAINTY[:2])


def test_threshold_leaves_out(detect, make_picture):
    bright.save("a.onnx", "nms")
    found = detect(make_picture(BOX), model="a.onnx", threshold=0.75, class_names=NAMES)
    assert len(found) == (bright.CERTAINTY > 0.75).sum() < bright.QUERIES


def test_a_segmenter_gives_its_boxes(detect, make_picture):
    """Behind the scores of its two classes are coefficients of masks, here the third score."""
    metadata = {"names": {0: "cat", 1: "dog"}, "task": "segment"}
    bright.save("a.onnx", "yolov8", metadata=metadata)
    assert list(detect(make_picture(BOX), model="a.onnx").data["class_name"]) == ["dog"]


@pytest.mark.parametrize(
    ("metadata", "asked", "message"),
    [
        ({"task": "obb"}, {}, "exported for the task 'obb', and its outputs are no boxes"),
        ({}, {"class_names": ["cat"]}, "scores of 3 classes, and there are 1 class names. Give"),
        ({"names": {0: "cat"}}, {}, r"outputs output0 \(1, 7, 12\) have scores of 3 classes"),
        ({}, {"layout": "boxes"}, r"layout 'boxes' does not fit outputs output0 \(1, 7, 12\)"),
        ({}, {"classes": ["dig"], "class_names": NAMES}, "no class 'dig'. Did you mean 'dog'"),
        ({}, {"classes": ["dog"]}, "knows no class 'dog'. Its file names no classes; give"),
    ],
)
def test_what_does_not_fit_is_said(detect, make_picture, metadata, asked, message):
    bright.save("a.onnx", "yolov8", metadata=metadata)
    declared = {"layout": "yolov8", **asked}
    with pytest.raises((StepError, ValueError), match=message):
        detect(make_picture(BOX), model="a.onnx", **declared)


def test_outputs_that_may_be_two_things_are_asked_about(detect, make_picture):
    """Two classes: rows of six are corners, score and class, or a centre and two scores."""
    bright.save("a.onnx", "detr in one", class_count=2, metadata={"names": {0: "cat", 1: "dog"}})
    unclear = r"output0 \(1, 12, 6\) do not say what they are. Give 'layout', one of yolov8"
    with pytest.raises(StepError, match=unclear):
        detect(make_picture(BOX), model="a.onnx")
    found = detect(make_picture(BOX), model="a.onnx", layout="detr")
    np.testing.assert_allclose(found.xyxy[0], BOX, atol=1.5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 96, 96, 3], r"takes pictures of shape \[1, 96, 96, 3\], not \(B, 3, H, W\)"),
        ([3, 96, 96], r"it takes images tensor\(float\) \[3, 96, 96\]. Export it again"),
    ],
)
def test_a_model_that_takes_no_such_pictures_is_refused(detect, make_picture, shape, message):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["out"])],
        "same",
        [value("images", TensorProto.FLOAT, shape)],
        [value("out", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), "a.onnx")
    with pytest.raises(StepError, match=message):
        detect(make_picture(BOX), model="a.onnx")


def test_a_network_that_does_not_run_is_refused(detect, make_picture):
    """Its graph wants pictures of 96 pixels, and its file does not say so."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.zeros((1, 3, 96, 96), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "weights"], ["out"])],
        "add",
        [value("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [value("out", TensorProto.FLOAT, [None] * 4)],
        [weights],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), "a.onnx")
    with pytest.raises(StepError, match=r"'a\.onnx' does not run on a picture of 64 x 64: .* Add"):
        detect(make_picture(BOX), model="a.onnx", size_px=64)


def test_a_broken_file_is_refused(detect, make_picture, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(StepError, match=r"onnxruntime cannot load 'a\.onnx'"):
        detect(make_picture(BOX), model="a.onnx")


def test_a_file_that_is_not_there_is_found_before_the_run(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=r"there is no file 'yolo\.onnx'\. Paths start where"):
        run_step(plugins, [], model="yolo.onnx")
    assert find_problem("yolo.pt").startswith("'yolo.pt' is no .onnx file. Export your model")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", "onnx/detect runs on cpu and cuda, not on 'mps'"),
        pytest.param(
            "cuda:1",
            "device 'cuda:1': this onnxruntime is built for CPUs. Run: pip uninstall onnxruntime",
            marks=pytest.mark.skipif(
                "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
                reason="this onnxruntime has CUDA",
            ),
        ),
    ],
)
def test_a_device_that_is_not_to_be_had_is_refused(detect, make_picture, device, message):
    bright.save("a.onnx", "yolov8")
    with pytest.raises(StepError, match=message):
        detect(make_picture(BOX), model="a.onnx", device=device)


def test_the_box_becomes_a_mask(plugins, tmp_path, monkeypatch, make_picture):
    monkeypatch.chdir(tmp_path)
    bright.save("a.onnx", "yolov8")
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {
                "detect": {
                    "use": "onnx/detect@v1",
                    "with": {"image": "$inputs.image", "model": "a.onnx", "class_names": NAMES},
                },
                "segment": {
                    "use": "sam2/segment@v1",
                    "with": {
                        "image": "$inputs.image",
                        "boxes": "$steps.detect.detections",
                        "model": "nano",
                    },
                },
            },
            "outputs": {"predictions": "$steps.segment.predictions"},
        }
    )
    with Runner(pipeline, plugins) as runner:
        [result] = runner.run([Item("a", {"image": make_picture(BOX, hw=(90, 120))})])
    assert result.errors == ()
    [mask] = result.outputs["predictions"].mask
    assert mask[9:33, 18:41].mean() > 0.9
    assert list(result.outputs["predictions"].data["class_name"]) == ["dog"]


def test_the_examples_of_the_manifest_run(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bright.save("yolo11n.onnx", "yolov8", metadata={"names": dict(enumerate(NAMES))})
    bright.save("rfdetr.onnx", "detr")
    check_block("onnx/detect@v1", plugins=plugins, resources=plugins.resources(tmp_path))


def test_one_model_is_loaded_once_for_all_steps(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bright.save("a.onnx", "yolov8")
    resources = plugins.resources(tmp_path)
    assert resources.loaded("onnx:a.onnx") is resources.loaded("a.onnx", family="onnx")


def test_strangers_name_no_files(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bright.save("a.onnx", "yolov8")
    with pytest.raises(ModelError, match="is a file, which whoever writes a workflow may not"):
        plugins.resources(tmp_path, local_models=False).loaded("onnx:a.onnx")


def test_the_plugin_brings_this_block_and_nothing_else(plugins):
    [record] = [record for record in plugins.records if record.name == "onnx"]
    assert (record.distribution, record.blocks) == ("sam2-blocks-onnx", ("onnx/detect@v1",))


def test_loading_the_plugin_does_not_import_onnxruntime():
    code = "import sys, sam2_blocks_onnx; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_are_not_written_into(detect, make_picture):
    bright.save("a.onnx", "yolov8")
    pixels = make_picture(BOX).pixels
    pixels.flags.writeable = False
    assert len(detect(Image(pixels, "locked"), model="a.onnx")) == 1

from __future__ import annotations

import inspect
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sam2_blocks import StepError, load_plugins, read_image
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts.comfyui.nodes import BATCH_SIZE, make_node
from sam2_blocks.hosts.comfyui.values import (
    Batch,
    images_to_tensor,
)
from sam2_blocks.testing import FakeExecutor, check_host, run_block, sample_detections
from tests.conftest import PICTURES
from tests.hosts.comfyui.conftest import picture

CUP = [173, 18, 417, 206]


def test_a_mask_is_that_of_our_own_runner(classes):
    image = read_image(PICTURES / "coffee.jpg")
    resources = load_plugins().resources()
    ours = run_block(
        "sam2/segment@v1",
        {"image": image, "prompts": [{"box_xyxy": CUP}]},
        resources=resources,
        model="nano",
    ).outputs["predictions"]
    pixels = images_to_tensor([image])
    node = classes["sam2_blocks_segment_v1"]()
    _, masks, boxes = node.run(image=pixels, boxes=[CUP], model="nano", device="cpu")
    assert (masks.dtype, tuple(masks.shape)) == (torch.float32, (1, 400, 600))
    expected = ours.mask[0]
    assert masks.numpy().tobytes() == expected[None].astype(np.float32).tobytes()
    assert boxes == ours.xyxy.tolist()


def test_the_contract_of_all_hosts(plugins):
    resources = Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))
    node = make_node(plugins.manifests["sam2/segment@v1"], plugins, resources)()

    def run(image, boxes, params):
        predictions, *_ = node.run(image=images_to_tensor([image]), boxes=Batch([boxes]), **params)
        return predictions[0]

    check_host(run, params={"model": "fake"}, resources=resources)


def test_a_batch_runs_as_pictures(segment):
    boxes = [[[2, 3, 12, 15]], [[2, 3, 12, 15], [14, 5, 30, 20]], []]
    predictions, masks, found = segment(image=picture(3), boxes=boxes)
    assert [len(detections) for detections in predictions] == [1, 2, 0]
    assert masks.shape == (3, 24, 32)
    assert [len(rows) for rows in found] == [1, 2, 0]


def test_boxes_in_one_list_are_for_all_pictures(segment):
    predictions, masks, _ = segment(image=picture(2), boxes=[[2, 3, 12, 15], [14, 5, 30, 20]])
    assert [len(detections) for detections in predictions] == [2, 2]
    assert masks.shape == (4, 24, 32)


def test_masks_of_pictures_join_their_objects(segment):
    boxes = [[[2, 3, 12, 15], [14, 5, 30, 20]], []]
    _, apart, _ = segment(image=picture(2), boxes=boxes)
    _, joined, _ = segment(image=picture(2), boxes=boxes, individual_masks=False)
    assert torch.equal(joined, torch.stack([apart.amax(0), torch.zeros(24, 32)]))


def test_no_boxes_give_no_masks(segment):
    _, masks, boxes = segment(image=picture(), boxes=[])
    assert (masks.shape, bool(masks.any()), boxes) == ((1, 24, 32), False, [])


def test_an_embedding_is_made_once_for_many_nodes(node, executor):
    [embedding] = node("sam2/embed@v1").run(image=picture(2))
    for _ in range(2):
        node("sam2/segment@v1").run(embedding=embedding, boxes=[[2, 3, 12, 15]])
    assert executor.seen == 2


def test_clicks_are_one_object(segment):
    prompts = '[{"box_xyxy": [2, 3, 12, 15]}]'
    clicks = {"positive_coords": "[{'x': 9, 'y': 8}]", "negative_coords": '[{"x": 1, "y": 2}]'}
    assert len(segment(image=picture(), **clicks, prompts="")[0][0]) == 1
    [found] = segment(image=picture(), **clicks, prompts=prompts)[0]
    assert found.xyxy.tolist() == [[2, 3, 11, 14], [7, 6, 11, 10]]


def test_masks_of_others_are_prompts_too(segment):
    mask = torch.zeros(1, 24, 32)
    mask[0, 5:10, 4:20] = 1
    [found] = segment(image=picture(), boxes=mask)[0]
    assert found.xyxy.tolist() == [[4, 5, 18, 8]]


def test_polygons_are_one_text_a_picture(node):
    masks = torch.zeros(2, 24, 32)
    masks[:, 5:10, 4:20] = 1
    [texts] = node("masks/polygons@v1").run(predictions=Batch([sample_detections()] * 2))
    assert [len(json.loads(text)) for text in texts] == [2, 2]
    [[text]] = node("masks/polygons@v1").run(predictions=masks)
    assert [row["iou"] for row in json.loads(text)] == [1, 1]


def test_drawing_gives_a_picture(node):
    [drawn] = node("draw/masks@v1").run(
        image=picture(2), predictions=Batch([sample_detections()] * 2)
    )
    assert (drawn.shape, drawn.dtype) == ((2, 24, 32, 3), torch.float32)
    assert not torch.equal(drawn, picture(2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give at least one of 'boxes', 'prompts'"),
        ({"boxes": [1, 2, 8, 9], "prompts": "[]"}, "got 1 boxes and 0 prompts"),
        ({"boxes": [[1, 2, 3]]}, "input 'boxes': row 0: wants box_xyxy"),
        ({"boxes": [1, 2, 3, 4], "min_confidence": 7}, "'min_confidence': Input should be less"),
        ({"boxes": "x"}, "'boxes': wants boxes, got str"),
        ({"boxes": [[[1, 2, 8, 9]]] * 3}, "'image': is of 2 pictures, another input of 3"),
        ({"boxes": torch.zeros(3, 24, 32)}, "'boxes': has 3 masks for 2 pictures"),
        ({"prompts": "[{"}, r"'prompts': wants JSON, got '\[\{'"),
        ({"prompts": '[{"box": 1}]'}, "'prompts': prompt 0: wants box_xyxy"),
        ({"positive_coords": "[[1, 2]]"}, "'positive_coords': wants points"),
        (
            {"boxes": [500, 500, 600, 600], "on_bad_prompt": "error"},
            "item 0 of 2: prompt 0: box .* lies wholly outside",
        ),
    ],
)
def test_an_error_names_the_node_and_the_field(segment, given, message):
    with pytest.raises(StepError, match=rf"step 'node 7' \(sam2/segment@v1\): .*{message}"):
        segment(image=picture(2), **given)


def test_a_picture_of_another_shape_is_refused(segment):
    with pytest.raises(StepError, match=r"'image': wants an IMAGE \(B, H, W, 3\)"):
        segment(image=torch.zeros(24, 32, 3), boxes=[])


def test_comfyui_can_interrupt_between_batches(segment, executor, monkeypatch):
    class InterruptProcessingException(Exception):  # noqa: N818 (ComfyUI's name)
        pass

    def throw():
        if executor.seen:
            raise InterruptProcessingException

    management = SimpleNamespace(throw_exception_if_processing_interrupted=throw)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    with pytest.raises(InterruptProcessingException):
        segment(image=picture(4 * BATCH_SIZE), boxes=[[2, 3, 12, 15]])
    assert executor.seen == BATCH_SIZE


def test_a_model_is_chosen_from_a_list_or_written(plugins):
    loaded = []

    def load(model, **options):
        loaded.append(model)
        return FakeExecutor(model)

    resources = Resources({"sam2": load})
    segment = make_node(plugins.manifests["sam2/segment@v1"], plugins, resources)
    listed, _ = segment.INPUT_TYPES()["optional"]["model"]
    assert listed[:2] == ["nano", "hiera_tiny"]
    for given in ({"model": "hiera_tiny"}, {"model": "nano", "other_model": "/mine/large.pt"}):
        segment().run(image=picture(), boxes=[[2, 3, 12, 15]], **given)
    assert loaded == ["hiera_tiny", "/mine/large.pt"]


def test_comfyui_leaves_the_check_of_listed_models_to_the_block(plugins):
    """It skips its own check of what the arguments of ``VALIDATE_INPUTS`` name, and no other."""
    segment = make_node(plugins.manifests["sam2/segment@v1"], plugins, Resources({}))
    assert inspect.getfullargspec(segment.VALIDATE_INPUTS).args == ["cls", "unique_id", "model"]
    assert segment.VALIDATE_INPUTS(unique_id="7", model="mine:large") is True


@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_package_is_found_before_anything_runs(plugins, listed):
    """ComfyUI shows what ``VALIDATE_INPUTS`` says once for each argument that has a value."""
    manifest = plugins.manifests["sam2/segment@v1" if listed else "draw/masks@v1"]
    lacking = manifest.model_copy(update={"requires": {"no_such_package": "no-such[extra]"}})
    node = make_node(lacking, plugins, Resources({}))
    arguments = inspect.getfullargspec(node.VALIDATE_INPUTS).args
    assert arguments[:2] == ["cls", "unique_id"]
    assert node.INPUT_TYPES()["hidden"] == {"unique_id": "UNIQUE_ID"}
    said = node.VALIDATE_INPUTS(unique_id="7")
    assert "needs the package 'no_such_package'" in said
    assert "pip install 'no-such[extra]'" in said


def test_nodes_that_need_nothing_more_are_not_asked(plugins):
    assert not hasattr(
        make_node(plugins.manifests["draw/masks@v1"], plugins, Resources({})), "VALIDATE_INPUTS"
    )


@pytest.mark.parametrize("hw", [(64, 64), (48, 64), (7, 5)])
def test_masks_of_another_size_are_scaled_to_the_picture(node, hw):
    mask = torch.zeros(1, *hw)
    mask[:, : hw[0] // 2 + 1] = 1
    drawn = node("draw/masks@v1").run(
        image=torch.zeros(1, 24, 32, 3), predictions=mask, labels=False, opacity=1.0
    )[0]
    assert drawn.shape == (1, 24, 32, 3)
    assert drawn[0, 4, 16].any()
    assert not drawn[0, 22, 16].any()


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        (torch.tensor([[2.0, 3, 12, 15], [14, 5, 30, 20]]), 2),
        (torch.tensor([[[2.0, 3, 12, 15]]]), 1),
        (torch.zeros(0, 4), 0),
    ],
)
def test_boxes_may_be_tensors(segment, boxes, count):
    predictions, *_ = segment(image=torch.zeros(1, 24, 32, 3), boxes=boxes)
    assert len(predictions[0]) == count

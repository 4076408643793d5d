"""Our blocks as nodes of ComfyUI: their contract without it, and the example inside it."""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
from collections import namedtuple
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from sam2_blocks import StepError, load_plugins, read_image
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts import comfyui
from sam2_blocks.hosts.comfyui.boxes import boxes_to_rows
from sam2_blocks.hosts.comfyui.nodes import BATCH_SIZE, make_node
from sam2_blocks.hosts.comfyui.values import (
    Batch,
    images_to_tensor,
    tensor_to_images,
    tensor_to_masks,
)
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.testing import FakeExecutor, check_host, run_block, sample_detections, sample_image
from tests.conftest import PICTURES, ROOT

EXAMPLE = ROOT / "examples" / "comfyui"
CUP = [173, 18, 417, 206]
SEG = namedtuple("SEG", ["bbox", "label", "confidence"])

PARAMS = """
manifest_version: 1
id: mine/params@v1
title: Params
summary: One parameter of each sort.
entry: nowhere:Mine
params:
  above: {type: integer, exclusiveMinimum: 0, description: Whole.}
  size: {type: number, default: 1, minimum: 0, unit: px, description: Size.}
  limit: {type: integer, default: null, description: Limit.}
  names: {type: array, default: [a], description: Names.}
  note: {type: string, default: null, description: Note.}
  way: {type: string, default: up, enum: [up, down], description: Way.}
outputs: {out: {kind: string}}
hosts: {comfyui: {defaults: {size: 2}}}
"""


class CountingExecutor(FakeExecutor):
    """Counts the pictures that it embeds."""

    seen = 0

    def embed(self, images):
        self.seen += len(images)
        return super().embed(images)


@pytest.fixture
def executor():
    return CountingExecutor()


@pytest.fixture
def node(plugins, executor):
    """A node of a built-in block, on the fake executor: ``node("sam2/segment@v1")``."""
    resources = Resources({"sam2": lambda *_, **__: executor})
    return lambda block: make_node(plugins.manifests[block], plugins, resources)()


@pytest.fixture
def segment(node):
    return lambda **given: node("sam2/segment@v1").run(unique_id="7", **given)


@pytest.fixture(scope="module")
def classes():
    return comfyui.load_nodes()[0]


def picture(count=1):
    """An IMAGE of ``count`` times the sample."""
    return images_to_tensor([sample_image()] * count)


def fields_of(node_class):
    types = node_class.INPUT_TYPES()
    return {**types["required"], **types["optional"]}


# What ComfyUI reads from the classes.


def test_every_block_without_files_is_a_node(plugins):
    offer = comfyui.find_offer(plugins)
    assert set(offer.blocks) == {
        "sam2_blocks_automatic_v1",
        "sam2_blocks_detections_filter_v1",
        "sam2_blocks_draw_masks_v1",
        "sam2_blocks_embed_v1",
        "sam2_blocks_masks_polygons_v1",
        "sam2_blocks_segment_v1",
    }
    assert set(offer.left_out) == {
        "detections/load@v1",
        "export/coco@v1",
        "export/labelme@v1",
        "export/yolo@v1",
    }


def test_the_folder_of_the_example_gives_both_mappings():
    made = runpy.run_path(str(EXAMPLE / "__init__.py"))
    assert made["NODE_DISPLAY_NAME_MAPPINGS"]["sam2_blocks_segment_v1"] == "SAM 2 segment"
    assert set(made["NODE_CLASS_MAPPINGS"]) == set(made["NODE_DISPLAY_NAME_MAPPINGS"])


def test_each_class_is_complete_and_plain_data(classes):
    for node_class in classes.values():
        count = len(node_class.RETURN_TYPES)
        assert len(node_class.RETURN_NAMES) == len(node_class.OUTPUT_TOOLTIPS) == count
        assert len(node_class.OUTPUT_IS_LIST) == count
        assert callable(getattr(node_class, node_class.FUNCTION))
        assert node_class.CATEGORY == "sam2_blocks"
        assert node_class.DESCRIPTION
        json.dumps(node_class.INPUT_TYPES())  # goes to the browser
        assert all(options["tooltip"] for _, options in fields_of(node_class).values())


def test_sockets_are_types_of_comfyui_or_ours(classes):
    segment = classes["sam2_blocks_segment_v1"]
    fields = fields_of(segment)
    assert fields["image"][0] == "IMAGE"
    assert fields["embedding"][0] == "SAM2_BLOCKS_EMBEDDING"
    assert {"SAM2_BLOCKS_PREDICTIONS", "BBOX", "SEGS", "MASK"} <= set(fields["boxes"][0].split(","))
    assert fields["prompts"][0] == "STRING"
    assert segment.RETURN_TYPES == ("SAM2_BLOCKS_PREDICTIONS", "MASK", "BBOX")
    assert segment.RETURN_NAMES == ("predictions", "masks", "boxes")
    assert set(classes["sam2_blocks_draw_masks_v1"].INPUT_TYPES()["required"]) == {
        "image",
        "predictions",
    }


def test_parameters_are_widgets(plugins):
    manifest = load_manifest(PARAMS, "params.yaml", plugins.kinds)
    types = make_node(manifest, plugins, plugins.resources()).INPUT_TYPES()
    assert types["required"]["above"] == ("INT", {"tooltip": "Whole.", "min": 1, "max": 2**53 - 1})
    widgets = types["optional"]
    assert widgets["size"][0] == "FLOAT"
    assert widgets["size"][1]["default"] == 2  # the host's own default
    assert widgets["size"][1]["tooltip"] == "Size. Unit: px."
    assert (widgets["size"][1]["min"], widgets["size"][1]["max"]) == (0, 2**53)
    assert widgets["limit"][1]["forceInput"]  # a widget could not be left empty
    assert widgets["names"][1]["default"] == '["a"]'
    assert widgets["note"][1]["default"] == ""
    assert widgets["way"] == (["up", "down"], {"tooltip": "Way.", "default": "up"})


def test_a_block_with_a_field_of_the_host_is_left_out(plugins):
    text = PARAMS.replace("above:", "box_format:")
    plugins.manifests["mine/params@v1"] = load_manifest(text, "params.yaml", plugins.kinds)
    reason = comfyui.find_offer(plugins).left_out["mine/params@v1"]
    assert reason == "'box_format' is a name the host keeps for itself"


# Pictures, masks, boxes.


def test_a_picture_of_eight_bits_survives():
    image = read_image(PICTURES / "coffee.jpg")
    loaded = torch.from_numpy(np.array(image.pixels).astype(np.float32) / 255.0)[None]
    [back] = tensor_to_images(loaded)  # as LoadImage makes it
    assert np.array_equal(back.pixels, image.pixels)
    assert torch.equal(images_to_tensor([back]), loaded)


def test_alpha_and_what_is_out_of_range_are_cut_off():
    pixels = torch.tensor([[[[1.5, -0.5, float("nan"), 0.3]]]])
    assert tensor_to_images(pixels)[0].pixels.tolist() == [[[255, 0, 0]]]


def test_pictures_of_two_sizes_are_no_batch():
    small = sample_image()
    large = type(small)(np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ValueError, match=r"one size, got \[\(24, 32\), \(50, 60\)\]"):
        images_to_tensor([small, large])


def test_a_mask_may_lack_its_first_axis():
    assert tensor_to_masks(torch.tensor([[0.4, 0.6]])).tolist() == [[[False, True]]]


@pytest.mark.parametrize(
    ("boxes", "rows"),
    [
        ([1, 2, 3, 4], [[[1, 2, 3, 4]]]),
        ((1, 2, 3, 4), [[[1, 2, 3, 4]]]),
        (np.array([[1, 2, 3, 4]]), [[[1, 2, 3, 4]]]),
        ([torch.tensor([1, 2, 3, 4])], [[[1, 2, 3, 4]]]),
        ([[[1, 2, 3, 4]], []], [[[1, 2, 3, 4]], []]),
        ([], [[]]),
        ({"x": 1, "y": 2, "width": 2, "height": 2}, [[[1, 2, 3, 4]]]),
        ([[{"x": 1, "y": 2, "width": 2, "height": 2}]], [[[1, 2, 3, 4]]]),
    ],
)
def test_boxes_of_every_form(boxes, rows):
    found = [[row["box_xyxy"] for row in picture] for picture in boxes_to_rows(boxes)]
    assert found == rows


def test_boxes_with_width_and_height():
    assert boxes_to_rows([[1, 2, 3, 4]], box_format="xywh") == [[{"box_xyxy": [1, 2, 4, 6]}]]


def test_boxes_with_labels_and_confidence():
    florence = [{"bboxes": [[1, 2, 3, 4]], "labels": ["cup"]}]
    impact = ((24, 32), [SEG(np.array([1, 2, 3, 4]), "cup", 0.5)])
    core = [[{"x": 1, "y": 2, "width": 2, "height": 2, "score": 0.5}]]
    box = {"box_xyxy": [1, 2, 3, 4]}
    assert boxes_to_rows(florence) == [[{**box, "class_name": "cup"}]]
    assert boxes_to_rows(impact) == [[{**box, "class_name": "cup", "confidence": 0.5}]]
    assert boxes_to_rows(core) == [[{**box, "confidence": 0.5}]]


@pytest.mark.parametrize("boxes", ["text", 3, [[[1, 2, 3, 4]], 3], [{"label": "cup"}]])
def test_what_is_no_box_is_refused(boxes):
    with pytest.raises(ValueError, match="wants "):
        boxes_to_rows(boxes)


# Nodes that run.


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
    expected = rle_to_mask(coco_to_rle(ours.data["rle_mask"][0]))
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
    assert (masks.shape, boxes) == ((0, 24, 32), [])


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
    assert found.data["prompt_xyxy"].tolist() == [[2, 3, 12, 15], [1, 2, 9, 8]]


def test_masks_of_others_are_prompts_too(segment):
    mask = torch.zeros(1, 24, 32)
    mask[0, 5:10, 4:20] = 1
    [found] = segment(image=picture(), boxes=mask)[0]
    assert found.data["prompt_xyxy"].tolist() == [[4, 5, 19, 9]]


def test_polygons_are_one_text_a_picture(node):
    masks = torch.zeros(2, 24, 32)
    masks[:, 5:10, 4:20] = 1
    [texts] = node("masks/polygons@v1").run(predictions=Batch([sample_detections()] * 2))
    assert [len(json.loads(text)) for text in texts] == [2, 2]
    [[text]] = node("masks/polygons@v1").run(predictions=masks)
    assert [row["iou"] for row in json.loads(text)] == [1, 1]


def test_lists_are_json(node):
    run = node("detections/filter@v1").run
    boxes = [{"bboxes": [[1, 2, 8, 9], [3, 4, 9, 9]], "labels": ["cup", "spoon"]}]
    kept, masks, found = run(detections=boxes, classes='["spoon"]', max_count=None)
    assert found == [[3, 4, 9, 9]]
    assert kept[0].data["class_name"].tolist() == ["spoon"]
    assert not masks.any()
    assert len(run(detections=boxes, classes=" ")[2]) == 2


def test_drawing_gives_a_picture(node):
    [drawn] = node("draw/masks@v1").run(
        image=picture(2), predictions=Batch([sample_detections()] * 2)
    )
    assert (drawn.shape, drawn.dtype) == ((2, 24, 32, 3), torch.float32)
    assert not torch.equal(drawn, picture(2))


# What goes wrong.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give exactly one of 'boxes', 'prompts'; got none"),
        ({"boxes": [], "prompts": "[]"}, "got 'boxes' and 'prompts'"),
        ({"boxes": [[1, 2, 3]]}, "input 'boxes': row 0: wants box_xyxy"),
        ({"boxes": [1, 2, 3, 4], "min_confidence": 7}, "'min_confidence': Input should be less"),
        ({"boxes": "x"}, "'boxes': wants boxes, got str"),
        ({"boxes": [[[1, 2, 8, 9]]] * 3}, "'image': is of 2 pictures, another input of 3"),
        ({"boxes": torch.zeros(3, 24, 32)}, "'boxes': has 3 masks for 2 pictures"),
        ({"prompts": "[{"}, r"'prompts': wants JSON, got '\[\{'"),
        ({"prompts": '[{"box": 1}]'}, "'prompts': prompt 0: wants box_xyxy"),
        ({"positive_coords": "[[1, 2]]"}, "'positive_coords': wants points"),
        ({"boxes": [500, 500, 600, 600]}, "item 0 of 2: prompt 0: box .* lies wholly outside"),
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


# The example.


def test_the_example_fits_the_nodes(classes):
    workflow = json.loads((EXAMPLE / "workflow.json").read_text())
    ours = [node for node in workflow.values() if node["class_type"] in classes]
    assert len(ours) == 3
    for node in ours:
        node_class = classes[node["class_type"]]
        assert set(node["inputs"]) <= set(fields_of(node_class))
        for name, value in node["inputs"].items():
            source = workflow[value[0]]["class_type"] if isinstance(value, list) else None
            if source in classes:
                given = set(classes[source].RETURN_TYPES[value[1]].split(","))
                assert given & set(fields_of(node_class)[name][0].split(","))


@pytest.mark.skipif(not find_spec("comfy_execution"), reason="wants ComfyUI on PYTHONPATH")
@pytest.mark.filterwarnings("ignore:::(?!sam2_blocks)")
def test_the_example_runs_in_comfyui(tmp_path):
    from comfy.cli_args import args

    args.cpu = True
    import_module("utils.extra_config")  # before a module of the same name, as in its main.py
    import comfy.model_management
    import execution
    import folder_paths
    import nodes
    from comfy_extras import nodes_mask

    folder_paths.set_input_directory(str(PICTURES))
    folder_paths.set_output_directory(str(tmp_path))
    nodes.NODE_CLASS_MAPPINGS.update(nodes_mask.NODE_CLASS_MAPPINGS)
    assert asyncio.run(nodes.load_custom_node(str(EXAMPLE)))

    workflow = json.loads((EXAMPLE / "workflow.json").read_text())
    valid, error, outputs, node_errors = asyncio.run(
        execution.validate_prompt("example", workflow, None)
    )
    assert valid, (error, node_errors)
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    executor = execution.PromptExecutor(server)
    executor.execute(workflow, "example", {}, outputs)
    assert executor.success, executor.status_messages

    prompts = json.loads(workflow["3"]["inputs"]["prompts"])
    image = read_image(PICTURES / "coffee.jpg")
    resources = load_plugins().resources()
    inputs = {"image": image, "prompts": prompts}
    ours = run_block("sam2/segment@v1", inputs, resources=resources, model="nano").outputs
    written = sorted(tmp_path.glob("sam2_blocks_mask_*.png"))
    for path, rle in zip(written, ours["predictions"].data["rle_mask"], strict=True):
        with Pil.open(path) as mask:
            assert np.array_equal(np.asarray(mask)[..., 0] > 127, rle_to_mask(coco_to_rle(rle)))

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        nodes.NODE_CLASS_MAPPINGS["sam2_blocks_embed_v1"]().run(image=picture())

from __future__ import annotations

import asyncio
import json
import runpy
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import Resources, load_plugins, read_image
from sam2_blocks.hosts import comfyui
from sam2_blocks.hosts.comfyui.nodes import make_node
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.testing import FakeDetector, FakeExecutor, run_block
from tests.conftest import PICTURES, ROOT
from tests.hosts.comfyui.conftest import fields_of, picture

EXAMPLE = ROOT / "examples" / "comfyui"


def test_every_block_without_files_is_a_node(plugins):
    offer = comfyui.find_offer(plugins)
    free = {
        name
        for name, manifest in plugins.manifests.items()
        if manifest.file_access == "none" and not any(one.many for one in manifest.inputs.values())
    }
    assert {manifest.id for manifest in offer.blocks.values()} == free
    assert {"sam2_blocks_segment_v1", "sam2_blocks_draw_masks_v1"} <= set(offer.blocks)
    assert set(offer.left_out) == set(plugins.manifests) - free


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


@pytest.mark.parametrize("name", ["workflow.json", "text.json"])
def test_the_examples_fit_the_nodes(classes, name):
    workflow = json.loads((EXAMPLE / name).read_text())
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


def test_phrases_become_boxes_and_boxes_masks(plugins):
    """The nodes of ``text.json`` by hand, in the order of the file, on fakes of both models."""
    workflow = json.loads((EXAMPLE / "text.json").read_text())
    resources = Resources({"sam2": FakeExecutor, "transformers": FakeDetector})
    ours = {
        name: make_node(manifest, plugins, resources)
        for name, manifest in comfyui.find_offer(plugins).blocks.items()
    }
    made = {"1": (picture(),)}
    for number, one in workflow.items():
        if one["class_type"] in ours:
            given = {
                name: made[value[0]][value[1]] if isinstance(value, list) else value
                for name, value in one["inputs"].items()
            }
            made[number] = ours[one["class_type"]]().run(unique_id=number, **given)
    [predictions] = made["3"][0]
    assert list(predictions.data["class_name"]) == ["cup", "spoon"]
    assert made["3"][1].shape[0] == 2  # a MASK an object
    assert all(mask.any() for mask in made["3"][1])
    assert not np.array_equal(made["4"][0].numpy(), picture().numpy())


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
    for path, rle in zip(written, to_rles(ours["predictions"]), strict=True):
        with Pil.open(path) as mask:
            assert np.array_equal(np.asarray(mask)[..., 0] > 127, rle_to_mask(coco_to_rle(rle)))

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        nodes.NODE_CLASS_MAPPINGS["sam2_blocks_embed_v1"]().run(image=picture())

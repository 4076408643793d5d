from __future__ import annotations

from sam2_blocks.hosts import comfyui
from sam2_blocks.hosts.comfyui.nodes import make_node
from sam2_blocks.language.manifest import load_manifest
from tests.hosts.comfyui.conftest import fields_of

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

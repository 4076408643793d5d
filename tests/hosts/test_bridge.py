"""What all hosts share; needs none of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import (
    MissingExtraError,
    PipelineError,
    StepError,
    load_plugins,
    rows_to_detections,
)
from sam2_blocks.cli.app import app
from sam2_blocks.engine.builtin import HOSTS
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts import roboflow
from sam2_blocks.hosts.bridge import BlockBridge, make_offer, offer_in_pipelines
from sam2_blocks.hosts.roboflow import engine
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.testing import FakeExecutor, check_host, sample_detections, sample_image

BLOCK = """
manifest_version: 1
id: mine/{name}@v1
title: Mine
summary: A block of somebody else.
entry: nowhere:Mine
inputs: {{{inputs}}}
outputs: {{out: {{kind: string}}}}
"""


@pytest.fixture
def fake_resources():
    return Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))


@pytest.fixture
def bridge(plugins, fake_resources):
    return BlockBridge(plugins.manifests["sam2/segment@v1"], plugins, fake_resources)


def test_rows_are_run_together(bridge):
    rows = [
        {"image": sample_image(), "boxes": sample_detections(n), "model": "fake"} for n in (0, 2)
    ]
    assert [len(outputs["predictions"]) for outputs in bridge.run(rows)] == [0, 2]


def test_none_is_not_given(bridge):
    row = {"image": sample_image(), "boxes": sample_detections(), "prompts": None, "model": "fake"}
    assert len(bridge.run([row])[0]["predictions"]) == 2


def test_none_in_one_row_leaves_the_default_there(bridge):
    row = {"image": sample_image(), "boxes": sample_detections(), "model": "fake"}
    rows = [{**row, "min_confidence": 0.9}, {**row, "min_confidence": None}]
    assert [len(outputs["predictions"]) for outputs in bridge.run(rows)] == [0, 2]


def test_literals_are_parsed(bridge):
    prompts = [{"point_coords": [[9, 9]]}]
    [outputs] = bridge.run([{"image": sample_image(), "prompts": prompts, "model": "fake"}])
    assert len(outputs["predictions"]) == 1


def test_a_failing_row_names_the_hosts_step_and_the_item(bridge):
    outside = sv.Detections(np.array([[500.0, 500, 600, 600]]))
    rows = [
        {"image": sample_image(), "boxes": boxes, "on_bad_prompt": "error"}
        for boxes in (sample_detections(), outside)
    ]
    with pytest.raises(StepError, match=r"step 'cut' \(sam2/segment@v1\): item 1 of 2: prompt 0"):
        bridge.run(rows, step="cut")


def test_a_model_that_cannot_be_loaded_names_the_hosts_step(bridge):
    row = {"image": sample_image(), "boxes": sample_detections(), "model": "fake", "device": "tpu"}
    with pytest.raises(StepError, match=r"step 'cut'.*'device'"):
        bridge.run([row], step="cut")


def test_missing_inputs_are_reported(bridge):
    with pytest.raises(PipelineError, match="give at least one of 'boxes', 'prompts'"):
        bridge.run([{"image": sample_image()}])


class Stopped(BaseException):
    """What a host stops its own nodes with."""


@pytest.mark.parametrize("stop", [KeyError, Stopped])
def test_a_host_can_stop_between_batches(plugins, fake_resources, stop):
    seen = []

    def before_row():
        seen.append(None)
        if len(seen) > 2:
            raise stop("stopped by the host")

    manifest = plugins.manifests["sam2/segment@v1"]
    bridge = BlockBridge(manifest, plugins, fake_resources, batch_size=1)
    row = {"image": sample_image(), "boxes": sample_detections(), "model": "fake"}
    with pytest.raises(stop, match="stopped by the host"):
        bridge.run([row] * 9, before_row=before_row)
    assert len(seen) == 3
    assert len(bridge.run([row])) == 1


def test_our_own_runner_passes_the_contract_test(bridge, fake_resources):
    def segment(image, boxes, params):
        return bridge.run([{"image": image, "boxes": boxes, **params}])[0]["predictions"]

    check_host(segment, params={"model": "fake"}, resources=fake_resources)


def test_the_contract_test_finds_a_lost_column(bridge, fake_resources):
    def segment(image, boxes, params):
        made = bridge.run([{"image": image, "boxes": boxes, **params}])[0]["predictions"]
        made.data["class_name"] = np.array(["foreground"] * len(made))
        return made

    with pytest.raises(AssertionError, match="'class_name' is"):
        check_host(segment, params={"model": "fake"}, resources=fake_resources)


def offer(plugins, **changes):
    given = {"kinds": plugins.kinds, "name_of": str, "trusted": True, **changes}
    return make_offer(plugins, **given)


TITLES = ("Roboflow Workflows", "ComfyUI", "Ray", "HTTP", "Label Studio", "CVAT", "FiftyOne")
THEIRS = {
    "torch",
    "supervision",
    "roboflow_workflows",
    "ray",
    "fastapi",
    "label_studio_sdk",
    "cvat_sdk",
}

JOIN = {"flow/first@v1": "'values' joins steps that may be skipped, which only our pipelines have"}


def test_a_trusted_host_gets_every_block_but_the_join_of_branches(plugins):
    assert offer(plugins).left_out == JOIN


def test_strangers_get_no_files(plugins):
    left_out = offer(plugins, trusted=False).left_out
    access = {name: found.file_access for name, found in plugins.manifests.items()}
    touching = {
        name: f"it {how}s files of the machine, on behalf of strangers"
        for name, how in access.items()
        if how != "none"
    }
    assert touching["export/coco@v1"].startswith("it writes files")
    assert left_out == {**touching, **JOIN}


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ("depth: {kind: depth_map}", "the kind of 'depth', depth_map, does not exist there"),
        ("name: {kind: string}", "'name' is a name the host keeps for itself"),
    ],
)
def test_a_block_is_left_out_with_its_reason(plugins, inputs, reason):
    kinds = {**plugins.kinds, "depth_map": plugins.kinds["image"]}
    plugins.manifests["mine/x@v1"] = load_manifest(
        BLOCK.format(name="x", inputs=inputs), "x.yaml", kinds
    )
    assert offer(plugins, reserved=("name",)).left_out == {"mine/x@v1": reason, **JOIN}


def test_blocks_of_one_name_are_left_out_all(plugins):
    name = "sam2_blocks/draw_masks@v1"
    plugins.manifests["sam2/draw_masks@v1"] = plugins.manifests["draw/masks@v1"]
    found = offer(plugins, name_of=roboflow.workflow_type)
    assert set(found.left_out) == {"draw/masks@v1", "sam2/draw_masks@v1", *JOIN}
    assert f"would be called {name!r}" in found.left_out["draw/masks@v1"]


def test_without_an_engine_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(engine, "ENGINES", ("no_such_engine", "nor_this.one"))
    engine.load_engine.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[roboflow\]'"):
        engine.load_engine()
    engine.load_engine.cache_clear()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_host_of_whole_pipelines_gets_every_block_under_its_name(plugins, trusted):
    found = offer_in_pipelines(plugins, trusted=trusted)
    assert found.blocks.keys() | found.left_out.keys() == set(plugins.manifests)
    assert all(name == manifest.id for name, manifest in found.blocks.items())
    access = {plugins.manifests[block].file_access for block in found.left_out}
    assert access == (set() if trusted else {"read", "write"})


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_described_without_importing_it_or_torch(host):
    code = (
        f"import sys; from sam2_blocks.hosts import {host}; "
        f"from sam2_blocks import load_plugins; {host}.report(load_plugins(points=[])); "
        f"print(sorted({THEIRS} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_hosts_list_names_every_host_installed_or_not(capsys):
    app(["hosts", "list"], standalone_mode=False)
    printed = capsys.readouterr().out
    for title in TITLES:
        assert re.search(rf"^{title} \((not installed|[\w-]+ [\d.]+)\): ", printed, re.M), title
    assert "their own names" in printed


def test_hosts_list_says_which_blocks_and_why_not(capsys):
    app(["hosts", "list", "--json"], standalone_mode=False)
    [found] = [
        row for row in json.loads(capsys.readouterr().out) if row["title"].startswith("Robo")
    ]
    assert found["blocks"]["sam2/segment@v1"] == "sam2_blocks/segment@v1"
    assert "files of the machine" in found["left_out"]["export/coco@v1"]


def test_hosts_list_is_a_table(capsys):
    app(["hosts", "list"], standalone_mode=False)
    assert "set WORKFLOWS_PLUGINS=sam2_blocks.hosts.roboflow" in capsys.readouterr().out


PIPELINE = """\
pipeline_version: 1
title: The best boxes
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
  most: {kind: integer, default: 1}
steps:
  keep: {use: detections/filter@v1, with: {detections: $inputs.boxes, max_count: $inputs.most}}
  masks:
    when: {value: $steps.keep.detections, is: not_empty}
    use: sam2/segment@v1
    with: {image: $inputs.image, boxes: $steps.keep.detections}
outputs:
  masks: {value: $steps.masks.predictions, default: empty}
"""


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """Load plugins with a folder of pipelines: ``composed({file name: text})``."""

    def load(files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        monkeypatch.setenv("SAM2_BLOCKS_PIPELINES", str(tmp_path))
        monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
        return load_plugins()

    return load


def test_a_pipeline_is_a_block_of_a_host(composed):
    plugins = composed({"best.yaml": PIPELINE})
    manifest = offer(plugins, trusted=False).blocks["pipelines/best@v1"]
    bridge = BlockBridge(manifest, plugins, Resources({"sam2": FakeExecutor}))
    boxes = rows_to_detections([[1, 1, 5, 5], [2, 2, 9, 9], [3, 3, 4, 4]])
    image = sample_image()
    rows = [{"image": image, "boxes": boxes, "most": 2}, {"image": image, "boxes": boxes}]
    rows.append({"image": image, "boxes": rows_to_detections([])})
    found = [len(outputs["masks"]) for outputs in bridge.run(rows)]
    assert found == [2, 1, 0]


def test_a_pipeline_that_may_give_nothing_is_left_out(composed):
    plugins = composed({"best.yaml": PIPELINE.replace(", default: empty", "")})
    reason = "its output 'masks' may be absent; give it a default in the pipeline"
    assert offer(plugins).left_out == {"pipelines/best@v1": reason, **JOIN}


def test_a_pipeline_that_reads_files_is_not_for_strangers(composed):
    keep = PIPELINE.partition("  keep: ")[2].partition("\n")[0]
    load = "{use: detections/load@v1, with: {image: $inputs.image}}"
    plugins = composed({"best.yaml": PIPELINE.replace(keep, load)})
    reason = offer(plugins, trusted=False).left_out["pipelines/best@v1"]
    assert "reads files of the machine" in reason

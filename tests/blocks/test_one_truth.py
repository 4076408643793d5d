"""Masks that other people's code moved or made: every block works on them as they are now."""

from __future__ import annotations

import json

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections, to_rles
from sam2_blocks.masks.rle import (
    coco_to_rle,
    mask_to_rle,
    masks_to_prediction,
    rle_to_coco,
    rle_to_mask,
)
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image, PromptSet

HW = (400, 600)
DISC = np.hypot(*np.ogrid[-300:100, -450:150]) < 80
"""In the lower right tile of four, at [370, 220, 529, 379]."""


@pytest.fixture
def image():
    return Image(np.zeros((*HW, 3), np.uint8), "disc.png")


@pytest.fixture
def sliced():
    """What `sv.InferenceSlicer` makes of masks that were found on tiles."""
    scene = np.repeat(DISC[..., None], 3, axis=2).astype(np.uint8)

    def segment(tile):
        masks = tile[..., 0].astype(bool)[None]
        return to_detections(masks_to_prediction(masks), drop_empty=True)

    slicer = sv.InferenceSlicer(
        callback=segment, slice_wh=(300, 200), overlap_wh=(0, 0), thread_workers=1
    )
    return slicer(scene)


@pytest.fixture
def run(plugins, tmp_path, image):
    def run(block, predictions, **params):
        inputs = {"image": image, "predictions": predictions}
        manifest = plugins.manifests[block]
        inputs = {name: value for name, value in inputs.items() if name in manifest.inputs}
        resources = Resources({}, tmp_path)
        return run_block(block, inputs, plugins=plugins, resources=resources, **params)

    return run


def to_dense(coco):
    return rle_to_mask(coco_to_rle(coco))


def run_lengths_alone(masks):
    """Detections as other engines build them."""
    found = sv.Detections(sv.mask_to_xyxy(np.array(masks)).astype(float))
    found.data["rle_mask"] = np.array([{**rle_to_coco(mask_to_rle(m))} for m in masks], object)
    return found


def test_coco_has_masks_of_tiles_where_they_are(run, sliced, tmp_path):
    run("export/coco@v1", sliced)
    rows = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    covered = np.zeros(HW, bool)
    for row in rows:
        assert row["segmentation"]["size"] == [400, 600]
        covered |= to_dense(row["segmentation"])
        x, y, width, height = row["bbox"]
        assert 370 <= x < x + width <= 530
        assert 220 <= y < y + height <= 380
    assert np.array_equal(covered, DISC)


def test_yolo_and_labelme_have_them_too(run, sliced, tmp_path):
    run("export/yolo@v1", sliced)
    run("export/labelme@v1", sliced)
    lines = next(tmp_path.rglob("*.txt")).read_text().splitlines()
    shares = np.concatenate([np.array(line.split()[1:], float).reshape(-1, 2) for line in lines])
    assert (shares * (600, 400)).min(axis=0).tolist() == pytest.approx([371, 221], abs=1)
    shapes = json.loads(next(tmp_path.rglob("*.json")).read_text())["shapes"]
    points = np.concatenate([shape["points"] for shape in shapes])
    assert points.max(axis=0).tolist() == pytest.approx([530, 380], abs=1)


def test_areas_are_those_of_the_masks_now(plugins, sliced):
    sliced.mask = np.ones((len(sliced), *HW), bool)
    kept = run_block(
        "detections/filter@v1", {"detections": sliced}, plugins=plugins, min_area=400 * 600
    ).outputs["detections"]
    assert len(kept) == len(sliced)


def test_no_column_of_ours_is_stale_after_a_move(sliced):
    assert not {"rle_mask", "prompt_xyxy"} & set(sliced.data)


def test_run_lengths_alone_are_drawn_traced_and_written(run, tmp_path):
    found = run_lengths_alone([DISC])
    drawn = run("draw/masks@v1", found, labels=False, boxes=False).outputs["image"]
    assert drawn.pixels[300, 450].any()
    assert not drawn.pixels[10, 10].any()
    [traced] = run("masks/polygons@v1", found).outputs["polygons"]
    assert traced["iou"] > 0.95
    run("export/coco@v1", found)
    [row] = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert np.array_equal(to_dense(row["segmentation"]), DISC)


@pytest.mark.parametrize(
    "block",
    ["export/coco@v1", "export/yolo@v1", "export/labelme@v1", "draw/masks@v1"],
)
def test_masks_of_another_size_are_refused(run, block):
    [error] = run(block, run_lengths_alone([DISC[:200]])).errors
    assert "the masks are 600x200 pixels, their picture is 600x400" in error.message


def test_an_empty_mask_is_not_drawn(run):
    nothing = to_detections(masks_to_prediction(np.zeros((2, *HW), bool)))
    drawn = run("draw/masks@v1", nothing, boxes=True, labels=True).outputs["image"]
    assert not drawn.pixels.any()


def test_an_empty_mask_is_no_prompt(plugins, image):
    masks = np.stack([DISC, np.zeros(HW, bool)])
    first = to_detections(masks_to_prediction(masks), image_id="disc.png")
    first.class_id[:] = [4, 5]
    again = run_block("sam2/segment@v1", {"image": image, "boxes": first}, plugins=plugins)
    found = again.outputs["predictions"]
    assert found.mask.area[1] == 0
    assert found.xyxy.tolist()[1] == [0, 0, 0, 0]
    assert found.mask.area[0] > 0
    assert found.class_id.tolist() == [4, 5]
    assert found.data["iou_prediction"].tolist() == [0.75, 0]
    assert found.data["prompt_index"].tolist() == [0, 1]


def test_only_empty_masks_are_no_prompts(plugins, image):
    nothing = to_detections(masks_to_prediction(np.zeros((2, *HW), bool)))
    again = run_block("sam2/segment@v1", {"image": image, "boxes": nothing}, plugins=plugins)
    assert not again.outputs["predictions"].mask.any()
    assert len(again.outputs["predictions"]) == 2


def test_a_box_of_one_pixel_at_the_corner_is_a_prompt(plugins, image):
    boxes = PromptSet.from_boxes([[0, 0, 1, 1]])
    found = run_block("sam2/segment@v1", {"image": image, "prompts": boxes}, plugins=plugins)
    assert to_rles(found.outputs["predictions"])[0].counts.sum() == 400 * 600

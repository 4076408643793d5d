from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sam2_blocks import Item, Runner
from sam2_blocks.blocks.export_coco import ExportCoco
from sam2_blocks.engine.resources import Resources
from sam2_blocks.formats.coco import CocoWriter
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import (
    FakeExecutor,
    run_block,
    sample_detections,
    sample_image,
)
from tests.formats.test_youtube_vis import frame, tracks


@pytest.fixture
def export_coco(plugins, export_pipeline, tmp_path):
    """Run pictures through steps that each write a COCO file, by step: their results."""

    def run(pictures, **steps):
        written = {name: ("export/coco@v1", params) for name, params in steps.items()}
        pipeline = export_pipeline("annotations", **written)
        inputs = [{"image": image, "found": sample_detections(1)} for image in pictures]
        items = [Item(str(number), given) for number, given in enumerate(inputs)]
        resources = Resources({"sam2": FakeExecutor}, tmp_path / "out")
        with Runner(pipeline, plugins, resources=resources) as runner:
            return list(runner.run(items))

    return run


def test_two_pictures_of_one_name_do_not_replace_each_other(export_coco, tmp_path):
    first, second = export_coco([sample_image("a.png"), sample_image("a.png")], export={})
    assert not first.errors
    assert "coco.json: two pictures are called 'a.png'" in second.errors[0].message
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 1


def test_a_mask_without_pixels_can_be_read_back(plugins, tmp_path):
    nothing = to_detections(masks_to_prediction(np.zeros((1, 24, 32), bool)))
    inputs = {"image": sample_image(), "predictions": nothing}
    resources = Resources({}, tmp_path)
    run_block(
        "export/coco@v1", inputs, plugins=plugins, resources=resources, segmentation="polygons"
    )
    [row] = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert coco_mask.area(row["segmentation"]) == 0


def test_two_steps_do_not_write_one_file(export_coco, tmp_path):
    [result] = export_coco(
        [sample_image()], first={}, second={"path": "./coco.json"}, third={"path": "b.json"}
    )
    assert [error.step for error in result.errors] == ["second"]
    assert "another step or output writes" in result.errors[0].message
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["b.json", "coco.json"]


@pytest.mark.parametrize("path", ["../coco.json", "/tmp/coco.json"])
def test_a_file_outside_the_output_folder_is_refused(export_coco, tmp_path, path):
    [result] = export_coco([sample_image()], export={"path": path})
    assert "is not below the output folder" in result.errors[0].message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_is_written_once_at_the_end(plugins, export_pipeline, tmp_path, form):
    pipeline = export_pipeline("annotations", export=("export/coco@v1", {"segmentation": form}))
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    target = tmp_path / "coco.json"
    with Runner(pipeline, plugins, resources=resources, batch_size=1) as runner:
        for name, count in (("a.png", 2), ("b.png", 0)):
            inputs = {"image": sample_image(name), "found": sample_detections(count)}
            assert not next(runner.run([Item(name, inputs)])).errors
        assert not target.exists()
    coco = json.loads(target.read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    assert coco["categories"] == [{"id": 0, "name": "face"}, {"id": 1, "name": "object"}]
    first, second = coco["annotations"]
    assert (first["image_id"], first["category_id"], first["area"]) == (1, 0, 120)
    assert first["bbox"] == [2, 3, 10, 12]
    assert second["id"] == 2
    segmentation = first["segmentation"]
    if form == "polygons":
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, 24, 32))
    assert coco_mask.area(segmentation) == 120


def test_frames_of_videos_have_video_index_and_track(plugins, tmp_path):
    """pycocotools reads it; lost tracks, whose masks are empty, are left out."""
    found = tracks((7, 3), (9, -1))
    found.data["track_state"] = np.array(["tracked", "lost"])
    items = [
        {"image": frame(5, video), "predictions": found} for video in ("a.mp4", "b.mp4", "a.mp4")
    ]
    items[2]["image"] = frame(6, "a.mp4")
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    block = ExportCoco(resources)
    for item in items:
        block.run([SimpleNamespace(**item, path="c.json", segmentation="rle", tolerance=0)])
    block.finish()
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["videos"] == [{"id": 1, "name": "a.mp4"}, {"id": 2, "name": "b.mp4"}]
    rows = [(row["file_name"], row["video_id"], row["frame_index"]) for row in document["images"]]
    assert rows == [("a.mp4/5", 1, 5), ("b.mp4/5", 2, 5), ("a.mp4/6", 1, 6)]
    assert [row["track_id"] for row in document["annotations"]] == [7, 7, 7]
    again = CocoWriter(tmp_path / "c.json", kept=["a.mp4/5", "b.mp4/5", "a.mp4/6"])
    again.finish()
    assert json.loads((tmp_path / "c.json").read_text()) == document

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam2_blocks import Item, Runner
from sam2_blocks.blocks.export_coco import ExportCoco
from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.formats.coco import CocoWriter, detections_to_annotations
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
    assert coco["categories"] == [{"id": 1, "name": "face"}, {"id": 2, "name": "object"}]
    first, second = coco["annotations"]
    assert (first["image_id"], first["category_id"], first["area"]) == (1, 1, 120)
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
        options = {"segmentation": "rle", "outlines": "edges", "tolerance": 0}
        block.run([SimpleNamespace(**item, path="c.json", **options)])
    block.finish()
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["videos"] == [{"id": 1, "name": "a.mp4"}, {"id": 2, "name": "b.mp4"}]
    rows = [(row["file_name"], row["video_id"], row["frame_index"]) for row in document["images"]]
    assert rows == [("a.mp4/5", 1, 5), ("b.mp4/5", 2, 5), ("a.mp4/6", 1, 6)]
    assert [row["track_id"] for row in document["annotations"]] == [7, 7, 7]
    again = CocoWriter(tmp_path / "c.json", kept=["a.mp4/5", "b.mp4/5", "a.mp4/6"])
    again.finish()
    assert json.loads((tmp_path / "c.json").read_text()) == document


SOURCE = {
    "images": [
        {"id": 70, "file_name": "in/a.png", "width": 32, "height": 24},
        {"id": 12, "file_name": "in/b.png", "width": 32, "height": 24},
        {"id": 5, "file_name": "in/none.png", "width": 32, "height": 24},
    ],
    "annotations": [
        {"id": 900, "image_id": 70, "category_id": 0, "bbox": [2, 3, 10, 12]},
        {"id": 3, "image_id": 12, "category_id": 7, "bbox": [4, 4, 8, 8]},
        {"id": 4, "image_id": 12, "category_id": 7, "bbox": [0, 0, 20, 20], "iscrowd": 1},
    ],
    "categories": [
        {"id": 0, "name": "cup", "supercategory": "dishes"},
        {"id": 7, "name": "eye", "supercategory": "body"},
        {"id": 3, "name": "unused", "supercategory": "body"},
    ],
}


@pytest.fixture
def coco_to_coco(plugins, tmp_path):
    """Segment the boxes of a COCO file, and write COCO."""

    def run(crowds="skip", names=("b.png", "a.png", "none.png"), kept=None, out="out"):
        (tmp_path / "source.json").write_text(json.dumps(SOURCE))
        image = {"image": "$inputs.image"}
        load = {**image, "path": str(tmp_path / "source.json"), "crowds": crowds}
        found = {"predictions": "$steps.segment.predictions"}
        pipeline = plugins.load_pipeline(
            {
                "pipeline_version": 1,
                "inputs": {"image": {"kind": "image"}},
                "steps": {
                    "load": {"use": "detections/load@v1", "with": load},
                    "segment": {
                        "use": "sam2/segment@v1",
                        "with": {**image, "boxes": "$steps.load.detections"},
                    },
                    "save": {"use": "export/coco@v1", "with": {**image, **found}},
                },
                "outputs": {"annotations": "$steps.save.annotations"},
            }
        )
        resources = Resources({"sam2": FakeExecutor}, tmp_path / out)
        if kept:
            path = tmp_path / out / "coco.json"
            before = {path: "ExportCoco"}
            resources.files = OutputFiles(
                tmp_path / out, kept=kept, shared_before=before, order=ORDER
            )
        items = [Item(name, {"image": sample_image(name)}) for name in names]
        with Runner(pipeline, plugins, resources=resources) as runner:
            assert not [error for result in runner.run(items) for error in result.errors]
        return json.loads((tmp_path / out / "coco.json").read_text())

    return run


ORDER = {"b.png": 0, "a.png": 1, "none.png": 2}


def test_coco_in_is_coco_out_with_all_its_ids(coco_to_coco, tmp_path):
    coco = coco_to_coco()
    assert {row["file_name"]: row["id"] for row in coco["images"]} == {
        "a.png": 70,
        "b.png": 12,
        "none.png": 5,
    }
    assert coco["categories"] == SOURCE["categories"]
    assert [(row["id"], row["image_id"], row["category_id"]) for row in coco["annotations"]] == [
        (3, 12, 7),
        (900, 70, 0),
    ]
    assert not {"class_id", "category"} & coco["annotations"][0].keys()
    truth = COCO(str(tmp_path / "source.json"))
    results = truth.loadRes(coco["annotations"])
    assert [len(results.getAnnIds(imgIds=[number])) for number in (70, 12)] == [1, 1]


def test_a_resumed_run_keeps_the_ids_too(coco_to_coco):
    whole = coco_to_coco()
    coco_to_coco(names=["b.png"], out="again")
    assert coco_to_coco(names=["a.png", "none.png"], out="again", kept={"b.png": []}) == whole


def test_crowds_stay_crowds(coco_to_coco):
    rows = coco_to_coco(crowds="keep")["annotations"]
    assert [(row["id"], row["iscrowd"]) for row in rows] == [(3, 0), (4, 1), (900, 0)]


def test_ids_that_come_twice_or_not_at_all_are_new(plugins, tmp_path):
    found = sample_detections()
    found.data["coco_annotation_id"] = np.array([8, 8])
    writer = CocoWriter(tmp_path / "a.json")
    for name, extra in (("a", {"id": 4}), ("b", {"id": 4}), ("c", {})):
        rows = detections_to_annotations(found, (24, 32))
        writer.add(name, {"width": 32, "height": 24, "annotations": rows, **extra})
    writer.finish()
    coco = json.loads((tmp_path / "a.json").read_text())
    assert [row["id"] for row in coco["images"]] == [4, 5, 6]
    assert [row["id"] for row in coco["annotations"]] == [8, 9, 10, 11, 12, 13]


def test_classes_that_a_file_does_not_list_come_after_its_own(tmp_path):
    writer = CocoWriter(tmp_path / "a.json")
    rows = detections_to_annotations(sample_detections(), (24, 32))
    listed = [{"id": 90, "name": "object", "supercategory": "thing"}]
    writer.add("a", {"width": 32, "height": 24, "annotations": rows}, listed)
    writer.finish()
    coco = json.loads((tmp_path / "a.json").read_text())
    assert coco["categories"] == [*listed, {"id": 91, "name": "face"}]
    assert [row["category_id"] for row in coco["annotations"]] == [91, 90]

"""The examples run as a user runs them, with the model that ships in the package."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil

from sam2_blocks.cli import app as cli
from sam2_blocks.formats.video import read_facts
from sam2_blocks.masks import coco_to_rle, rle_to_mask
from tests.conftest import PICTURES, ROOT


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run one example into a folder: ``run(name, *arguments) -> folder``."""
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setattr("warnings.showwarning", None)  # main() replaces it
    monkeypatch.setattr(cli.Pil, "MAX_IMAGE_PIXELS", cli.Pil.MAX_IMAGE_PIXELS)

    def call(name, *arguments):
        command = [
            "run",
            str(ROOT / "examples" / name),
            "--out",
            str(tmp_path),
            *map(str, arguments),
        ]
        monkeypatch.setattr(sys, "argv", ["sam2-blocks", *command])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        return tmp_path

    return call


def rows_of(path):
    return json.loads(path.read_text())["detections"]


def test_quickstart(run):
    folder = run("quickstart.yaml", "--input", PICTURES / "coins.jpg")
    rows = rows_of(folder / "predictions.json")
    assert [row["class_name"] for row in rows] == ["coin"] * 24
    boxes = np.array([row["box_xyxy"] for row in rows_of(PICTURES / "coins.json")])
    found = np.array([row["box_xyxy"] for row in rows])
    overlaps = sv.box_iou_batch(found, boxes)
    assert (overlaps.argmax(axis=1) == range(24)).all()  # each mask fills its own box
    assert overlaps.diagonal().min() > 0.7
    with Pil.open(folder / "overlay.png") as overlay:
        assert overlay.size == (768, 606)


def test_the_cup_too(run):
    folder = run("quickstart.yaml", "--input", PICTURES / "coffee.jpg")
    rows = rows_of(folder / "predictions.json")
    assert [row["class_name"] for row in rows] == ["saucer", "cup", "coffee", "spoon"]


def test_points_are_on_the_head_the_suit_and_the_wall(run):
    folder = run("points.yaml", "--input", PICTURES / "astronaut.jpg")
    rows = rows_of(folder / "predictions.json")
    assert [row["prompt_index"] for row in rows] == [0, 1, 2]
    assert min(row["confidence"] for row in rows) > 0.7
    masks = [rle_to_mask(coco_to_rle(row["segmentation"])) for row in rows]
    head, suit, wall = (225, 110), (100, 400), (300, 40)
    inside = [[bool(mask[y, x]) for x, y in (head, suit, wall)] for mask in masks]
    assert inside == [[True, False, False], [False, True, False], [False, False, True]]


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.jpg")), ids=lambda path: path.name)
def test_points_run_on_every_picture(run, picture):
    folder = run("points.yaml", "--input", picture)
    assert len(rows_of(folder / "predictions.json")) == 3


def test_track(run):
    """Any clip: nothing in it is named or placed."""
    clip = ROOT / "examples" / "videos" / "toys.mp4"
    folder = run("track.yaml", "--input", clip, "--to", "3")
    frames = [rows_of(folder / "toys" / f"00000{n}" / "predictions.json") for n in range(3)]
    ids = [[row["tracker_id"] for row in rows] for rows in frames]
    assert len(ids[0]) >= 3
    assert ids[0] == ids[1] == ids[2]
    assert read_facts(folder / "toys.mp4").frames == 3
    assert json.loads((folder / "tracks.json").read_text())["videos"] == [
        {"id": 1, "name": "toys.mp4"}
    ]


def test_propagate(run):
    """Three toys marked on five frames: each is found on every frame, under its id and name."""
    clip = ROOT / "examples" / "videos" / "toys.mp4"
    folder = run("propagate.yaml", "--input", clip, "--every", "5")
    names = {1: "star", 2: "ball", 3: "block"}
    tracks = json.loads((folder / "youtube_vis.json").read_text())
    assert [row["length"] for row in tracks["videos"]] == [12]
    named = {row["id"]: row["name"] for row in tracks["categories"]}
    found = {row["track_id"]: named[row["category_id"]] for row in tracks["annotations"]}
    assert found == names
    first = {row["tracker_id"]: row for row in rows_of(folder / "toys/000000/predictions.json")}
    for key, (x, y) in {1: (70, 62), 2: (30, 146), 3: (250, 178)}.items():  # where they are drawn
        mask = rle_to_mask(coco_to_rle(first[key]["segmentation"]))
        assert mask[y, x], names[key]
        assert mask.sum() < 4000
    assert read_facts(folder / "toys.mp4").frames == 12
    assert len(list((folder / "masks").rglob("*.png"))) == 12


def test_crops_come_back_onto_the_picture(run):
    folder = run("crops.yaml", "--input", PICTURES / "coffee.jpg")
    rows = rows_of(folder / "predictions.json")
    crops = np.array([row["box_xyxy"] for row in rows_of(PICTURES / "coffee.json")])
    assert {row["crop_index"] for row in rows} == set(range(len(crops)))
    for row in rows:
        x0, y0, x1, y1 = crops[row["crop_index"]]
        margin = 0.1 * max(x1 - x0, y1 - y0) + 2
        found = np.array(row["box_xyxy"])
        assert (found[:2] >= [x0 - margin, y0 - margin]).all()
        assert (found[2:] <= [x1 + margin, y1 + margin]).all()
        assert row["segmentation"]["size"] == [400, 600]


def test_pictures_without_boxes_take_the_other_branch(run):
    folder = run("when.yaml", "--input", PICTURES)
    boxed = rows_of(folder / "coffee.jpg" / "predictions.json")
    assert [row["class_name"] for row in boxed] == ["saucer", "cup", "coffee", "spoon"]
    assert (folder / "coffee.jpg" / "overlay.png").exists()
    other = rows_of(folder / "chelsea.jpg" / "predictions.json")
    assert other
    assert "stability_score" in other[0]
    assert rows_of(folder / "chelsea.jpg" / "boxed.json") == []
    assert not (folder / "chelsea.jpg" / "overlay.png").exists()


def test_coco_folder(run):
    boxes = ROOT / "examples" / "coco" / "boxes.json"
    folder = run("coco_folder.yaml", "--input", PICTURES, "--set", f"annotations={boxes}")
    coco = json.loads((folder / "masks.json").read_text())
    names = {row["id"]: row["name"] for row in coco["categories"]}
    assert [names[row["category_id"]] for row in coco["annotations"]] == ["suit", "cup", "spoon"]
    assert {picture["file_name"] for picture in coco["images"]} == {
        "astronaut.jpg",
        "chelsea.jpg",
        "coffee.jpg",
        "coins.jpg",
    }


def test_a_detectors_boxes_become_coco_masks(run, tiny_detector):
    arguments = ("--set", f"detector={tiny_detector('rt_detr_v2')}")
    folder = run("detect.yaml", "--input", PICTURES / "coffee.jpg", *arguments)
    rows = json.loads((folder / "coco.json").read_text())["annotations"]
    assert 0 < len(rows) <= 50


def test_phrases_become_masks(run, tiny_detector):
    arguments = ("--set", f"grounder={tiny_detector('grounding_dino')}")
    folder = run("text.yaml", "--input", PICTURES / "coffee.jpg", *arguments)
    rows = rows_of(folder / "predictions.json")
    assert {row["class_name"] for row in rows} <= {"cup", "spoon"}
    assert rows


def test_large_pictures_are_looked_at_in_tiles(run, tiny_detector):
    arguments = ("--set", f"detector={tiny_detector('rt_detr_v2')}", "--set", "tile_px=300")
    folder = run("large.yaml", "--input", PICTURES / "coffee.jpg", *arguments)
    boxes = np.array([row["box_xyxy"] for row in rows_of(folder / "predictions.json")])
    assert len(boxes) > 30, "more than one view finds"

"""The examples run as a user runs them, with the model that ships in the package."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image as Pil

from sam2_blocks.cli import app as cli
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
    folder = run("quickstart.yaml", "--input", PICTURES / "coffee.jpg")
    rows = rows_of(folder / "predictions.json")
    assert [row["class_name"] for row in rows] == ["saucer", "cup", "coffee", "spoon"]
    with Pil.open(folder / "overlay.png") as overlay:
        assert overlay.size == (600, 400)


def test_points(run):
    folder = run("points.yaml", "--input", PICTURES / "chelsea.jpg")
    rows = rows_of(folder / "predictions.json")
    assert len(rows) == 3
    assert [row["prompt_index"] for row in rows] == [0, 1, 2]


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
    }

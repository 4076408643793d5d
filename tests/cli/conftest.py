from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from sam2_blocks.cli import app as cli
from sam2_blocks.cli import screen
from sam2_blocks.testing import FakeExecutor
from tests.conftest import PICTURES, ROOT

QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
COFFEE = str(PICTURES / "coffee.jpg")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the program in this process with the fake executor: ``(exit code, stdout, stderr)``."""
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)
    monkeypatch.setattr(screen.out, "width", 120)
    monkeypatch.setattr("warnings.showwarning", None)  # main() replaces it
    monkeypatch.setattr(cli.Pil, "MAX_IMAGE_PIXELS", cli.Pil.MAX_IMAGE_PIXELS)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sam2-blocks", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder with two good pictures, one of them deeper, and one broken one."""
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg"):
        (pictures / name).write_bytes((PICTURES / "coffee.jpg").read_bytes())
        json_name = (pictures / name).with_suffix(".json")
        json_name.write_bytes((PICTURES / "coffee.json").read_bytes())
    (pictures / "broken.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes()[:5000])
    return pictures


def add_picture(path):
    path.write_bytes((PICTURES / "coffee.jpg").read_bytes())
    path.with_suffix(".json").write_bytes((PICTURES / "coffee.json").read_bytes())


@pytest.fixture
def exporting(call, folder, tmp_path):
    """Run a pipeline with YOLO and COCO files on the folder: (exit code, stdout, stderr)."""
    (folder / "broken.jpg").unlink()
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    wires = "{image: $inputs.image, predictions: $steps.segment.predictions}"
    steps = f"  yolo: {{use: export/yolo@v1, with: {wires}}}\n"
    steps += f"  coco: {{use: export/coco@v1, with: {wires}}}\n"
    pipeline, target = tmp_path / "p.yaml", tmp_path / "out"
    pipeline.write_text(text.replace("outputs:\n", f"{steps}outputs:\n"))

    def run(*more, source=folder):
        return call("run", pipeline, "-i", source, "-o", target, *more)

    def named():
        images = json.loads((target / "coco.json").read_text())["images"]
        return [image["file_name"] for image in images]

    return SimpleNamespace(run=run, named=named, target=target, labels=target / "labels")

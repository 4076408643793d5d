"""``examples/plugin`` as a user has it: installed, found by its entry point, tested, run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PICTURES, ROOT

PLUGIN = ROOT / "examples" / "plugin"
DETECTOR = ROOT / "examples" / "detector.yaml"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Run Python where the plugin is installed, from a folder where nothing else is."""
    target, elsewhere = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("SAM2_BLOCKS_PLUGINS", None)
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )

    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    done = run("-m", "pip", "install", *offline, "--target", target, PLUGIN)
    assert done.returncode == 0, done.stderr
    assert (target / "sam2_blocks_opencv" / "manifests" / "detect.yaml").is_file()
    return run


def test_the_installed_plugin_is_found(python):
    done = python("-m", "sam2_blocks", "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    [record] = [record for record in json.loads(done.stdout) if record["name"] == "opencv"]
    assert record["distribution"] == "sam2-blocks-opencv"
    assert record["blocks"] == ["opencv/detect@v1", "opencv/grabcut@v1"]
    assert record["error"] == ""


def test_its_own_tests_pass(python):
    config = ["-c", PLUGIN / "pyproject.toml", "--rootdir", PLUGIN, "-p", "no:cacheprovider"]
    done = python("-m", "pytest", "-q", *config, PLUGIN / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pipeline_with_its_detector_is_valid(python):
    done = python("-m", "sam2_blocks", "validate", DETECTOR)
    assert done.returncode == 0, done.stderr
    assert "is valid: detect → keep → segment → draw" in done.stdout


def test_the_face_it_finds_becomes_a_mask_of_class_face(python, tmp_path):
    picture = PICTURES / "astronaut.jpg"
    done = python("-m", "sam2_blocks", "run", DETECTOR, "-i", picture, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "overlay.png").stat().st_size > 0
    [row] = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))["detections"]
    assert (row["class_name"], row["class_id"]) == ("face", 0)
    assert row["confidence"] > 0.99  # the detector's, not the predicted IoU
    x0, y0, x1, y1 = row["box_xyxy"]
    assert x0 < 177 + 48 < x1  # the middle of the face
    assert y0 < 66 + 48 < y1
    assert row["segmentation"]["size"] == [512, 512]

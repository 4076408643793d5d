"""A second family, registered through the hooks alone, wherever a model may be named.

Roboflow's engine has it in ``tests/hosts/roboflow/test_threshold_family.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from sam2_blocks import Item, PipelineError, Runner, load_plugins
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service import Service, ServiceSettings
from sam2_blocks.service.models import load_models
from sam2_blocks.service.pipelines import PipelineRunner
from sam2_blocks.values import Image
from tests.conftest import PICTURES, ROOT
from tests.service.conftest import as_request, box

POINT = EntryPoint("threshold", "tests.threshold_family", "sam2_blocks")


def square():
    """A bright square on a dark ground."""
    pixels = np.full((40, 60, 3), 20, np.uint8)
    pixels[10:30, 20:50] = 220
    return Image(pixels, "square.png")


def document(model="threshold:otsu"):
    return {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {
            "segment": {
                "use": "sam2/segment@v1",
                "with": {
                    "image": "$inputs.image",
                    "prompts": [{"box_xyxy": [5, 5, 55, 35]}],
                    "model": model,
                },
            }
        },
        "outputs": {"predictions": "$steps.segment.predictions"},
    }


@pytest.fixture
def plugins():
    return load_plugins(strict=True, points=[POINT])


@pytest.mark.parametrize("model", ["threshold:otsu", "threshold:mean"])
def test_it_runs_in_a_pipeline(plugins, model):
    with Runner(plugins.load_pipeline(document(model)), plugins) as runner:
        [result] = runner.run([Item("square", {"image": square()})])
    assert not result.errors
    [mask] = result.outputs["predictions"].mask
    assert np.array_equal(np.asarray(mask), square().pixels[..., 0] > 100)


def test_a_misspelt_name_is_found_before_anything_loads(plugins):
    with pytest.raises(
        PipelineError,
        match=r"steps\.segment\.with\.model: there is no model 'threshold:otsuu'"
        r"\. Did you mean 'otsu'\?",
    ):
        plugins.load_pipeline(document("threshold:otsuu"))


@pytest.fixture
def service(plugins):
    models = load_models(["threshold:otsu"], plugins.executors, ServiceSettings())
    service = Service(models)
    yield service
    service.close()


def test_it_answers_requests_of_the_service(service):
    request = {"image": as_request(square()), "prompts": [box(5, 5, 55, 35)], "format": "rle"}
    answer = asyncio.run(service.segment(Sam2SegmentationRequest.model_validate(request)))
    [found] = answer.predictions
    assert np.array_equal(rle_to_mask(coco_to_rle(found.masks)), square().pixels[..., 0] > 100)


def test_it_runs_in_pipelines_of_the_service_said_or_unsaid(service, plugins):
    runner = PipelineRunner(service, plugins)
    said, unsaid = document(), document()
    del unsaid["steps"]["segment"]["with"]["model"]
    inputs = {"image": as_request(square())}
    answers = [asyncio.run(runner.run(each, inputs)) for each in (said, unsaid)]
    runner.close()
    boxes = [[row["box_xyxy"] for row in answer["predictions"]] for answer in answers]
    assert boxes == [[[20, 10, 49, 29]]] * 2


@pytest.fixture
def program(tmp_path):
    """``sam2-blocks`` where the family is installed, as an entry point of a distribution."""
    info = tmp_path / "threshold_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: threshold-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sam2_blocks]\nthreshold = {POINT.value}\n")

    def run(*words):
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-m", "sam2_blocks", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_it_is_listed_among_the_models(program):
    rows = json.loads(program("models", "list", "--json").stdout)
    found = [row["model"] for row in rows if row["family"] == "threshold"]
    assert found == ["threshold:otsu", "threshold:mean"]
    assert "nano" in [row["model"] for row in rows]


def test_it_runs_from_yaml(program, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(document()))
    picture, out = PICTURES / "coffee.jpg", tmp_path / "out"
    ran = program("run", file, "--input", picture, "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((out / "predictions.json").read_text())
    assert "it needs the model threshold:otsu" in program("validate", file).stdout

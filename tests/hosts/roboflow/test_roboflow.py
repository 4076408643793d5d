from __future__ import annotations

import json
import runpy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam2_blocks import Image, read_image
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.testing import FakeExecutor, check_host
from tests.conftest import PICTURES, ROOT
from tests.hosts.roboflow.conftest import (
    BOXES,
    DRAW,
    HW,
    IGNORED,
    IMAGE,
    PREDICTIONS,
    SEGMENT,
    detector_output,
    picture,
    resources_of,
    run_one,
)

pytestmark = pytest.mark.filterwarnings(IGNORED)


def test_importing_the_plugin_is_cheap_and_needs_no_torch():
    """Only small packages are loaded: no torch, no supervision, not the engine either."""
    code = (
        "import sys; sys.modules['torch'] = None; before = set(sys.modules); "
        "import sam2_blocks.hosts.roboflow; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in ran.stdout.split() if not name.startswith("_")}
    small = {"PIL", "annotated_types", "defusedxml", "numpy", "pluggy", "pydantic", "ruamel"}
    small |= {
        "lazy_loader",
        "pydantic_core",
        "sam2_blocks",
        "typing_extensions",
        "typing_inspection",
    }
    assert loaded - sys.stdlib_module_names <= small


def test_everything_in_a_picture_without_prompts(start):
    step = {
        "type": "sam2_blocks/automatic@v1",
        "name": "segment",
        "image": "$inputs.image",
        "points_per_side": 3,
        "extra_columns": True,
        "model": "nano",
    }
    engine = start([step, DRAW[0]], {**PREDICTIONS, "drawn": "$steps.mask.image"}, inputs=[IMAGE])
    result = run_one(engine, image=picture())
    assert len(result["predictions"]) == 9
    assert result["predictions"].data["stability_score"].tolist() == [1] * 9
    assert (result["drawn"].numpy_image != picture()).any()
    rows = run_one(engine, serialize=True, image=picture())["predictions"]["predictions"]
    assert len(rows) == 9


def test_one_embedding_serves_two_steps(start):
    resources, executor = resources_of(FakeExecutor)
    embed = {"type": "sam2_blocks/embed@v1", "name": "embed", "image": "$inputs.image"}
    first = {**SEGMENT, "image": None, "embedding": "$steps.embed.embedding"}
    second = {**first, "name": "second", "boxes": "$steps.segment.predictions"}
    outputs = {**PREDICTIONS, "second": "$steps.second.predictions"}
    engine = start([embed, first, second], outputs, resources=resources)
    result = run_one(engine, image=picture(), boxes=detector_output(2))
    assert executor.embedded == ["image"]
    assert result["second"].data["root_parent_id"].tolist() == ["image", "image"]
    assert result["second"].data["image_dimensions"].tolist() == [[*HW], [*HW]]


@pytest.fixture(scope="session")
def nano():
    """Resources that load ``nano`` once."""
    from sam2_blocks import load_plugins

    resources = load_plugins(points=[]).resources()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the embedded weights of 'nano' are missing")
        resources.executor("nano", device="cpu")
    return resources


def test_the_same_masks_as_our_own_runner(start, nano):
    step = {**SEGMENT, "model": "nano", "device": "cpu", "extra_columns": True}
    engine = start([step], PREDICTIONS, resources=nano)

    def segment(image, boxes, params):
        return run_one(engine, image=bgr(image), boxes=boxes)["predictions"]

    picture_file = read_image(PICTURES / "coffee.jpg")
    check_host(
        segment, image=picture_file, params={"model": "nano", "device": "cpu"}, resources=nano
    )


def bgr(image: Image) -> np.ndarray:
    return np.ascontiguousarray(image.pixels[..., ::-1])


def test_eight_steps_at_once_run_the_encoder_once(start, nano):
    names = [f"step-{index}" for index in range(8)]
    steps = [{**SEGMENT, "name": name, "model": "nano", "device": "cpu"} for name in names]
    outputs = {name: f"$steps.{name}.predictions" for name in names}
    engine = start(steps, outputs, resources=nano)
    executor = nano.executor("nano", device="cpu")
    before = executor.cache_stats().misses
    result = run_one(engine, image=picture(8), boxes=detector_output(2))
    assert executor.cache_stats().misses == before + 1
    masks = [[rle.counts.tolist() for rle in to_rles(result[name])] for name in names]
    assert masks == [masks[0]] * 8


def test_two_workflows_at_once(start, nano):
    step = {**SEGMENT, "model": "nano", "device": "cpu"}
    engines = [start([step], PREDICTIONS, resources=nano) for _ in range(2)]
    jobs = [(engines[index % 2], picture(index % 3)) for index in range(6)]

    def masks_of(job):
        found = run_one(job[0], image=job[1], boxes=detector_output(2))["predictions"]
        return [rle.counts.tolist() for rle in to_rles(found)]

    alone = [masks_of(job) for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(masks_of, jobs)) == alone


def test_an_embedding_is_sent_from_one_workflow_to_another(start, nano):
    model = {"model": "nano", "device": "cpu"}
    embed = {"type": "sam2_blocks/embed@v1", "name": "embed", "image": "$inputs.image", **model}
    sender = start([embed], {"embedding": "$steps.embed.embedding"}, inputs=[IMAGE], resources=nano)
    sent = json.loads(json.dumps(run_one(sender, serialize=True, image=picture())["embedding"]))
    embedding = {"type": "WorkflowBatchInput", "name": "embedding", "kind": ["image_embedding"]}
    step = {**SEGMENT, "image": None, "embedding": "$inputs.embedding"}
    receiver = start([step], PREDICTIONS, inputs=[embedding, BOXES], resources=nano)
    here = start([{**SEGMENT, **model}], PREDICTIONS, resources=nano)
    found = run_one(receiver, embedding=[sent], boxes=[detector_output(2)])["predictions"]
    wanted = run_one(here, image=picture(), boxes=detector_output(2))["predictions"]
    assert np.array_equal(found.mask, wanted.mask)
    assert found.data["root_parent_id"].tolist() == ["image", "image"]


def test_the_example_runs(engine_class, nano, tmp_path, monkeypatch, capsys):
    from sam2_blocks.hosts import roboflow

    monkeypatch.setitem(roboflow.REGISTERED_INITIALIZERS, "resources", lambda: nano)
    example = runpy.run_path(str(ROOT / "examples" / "roboflow_workflow.py"))
    example["main"](tmp_path)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "saucer",
        "cup",
        "coffee",
        "spoon",
    ]
    assert (tmp_path / "overlay.jpg").stat().st_size > 10_000

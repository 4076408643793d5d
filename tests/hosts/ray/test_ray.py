"""A Ray cluster of two workers on this machine."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
from pydantic import ValidationError

from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.conftest import PICTURES, ROOT
from tests.service.conftest import as_request, box, picture

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("ray.serve", reason="needs the extra ray")
httpx = pytest.importorskip("httpx")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PICTURE = picture()
SEGMENT = {"image": as_request(PICTURE), "prompts": [box(10, 10, 60, 50)], "format": "rle"}


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_service_is_a_serve_deployment(cluster):
    from ray import serve

    from sam2_blocks.hosts.ray import build_app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    given = {"model": "nano,hiera_large=nano", "replicas": "2"}  # as `serve run` passes options
    serve.run(build_app({**given, "settings": {"max_queue": 50}}), route_prefix="/")
    [application] = serve.status().applications.values()
    assert application.deployments["sam2_blocks"].replica_states == {"RUNNING": 2}
    url = f"http://127.0.0.1:{port}"
    answer = httpx.post(f"{url}/sam2/segment_image", json=SEGMENT, timeout=60)
    assert answer.status_code == 200, answer.text
    [row] = answer.json()["predictions"]
    assert rle_to_mask(coco_to_rle(row["masks"])).shape == PICTURE.hw
    assert httpx.get(f"{url}/readyz").json()["models"] == ["nano", "hiera_large"]
    assert httpx.post(f"{url}/sam2/segment_image", json={}).status_code == 422
    serve.shutdown()


def test_replicas_cpus_and_gpus_are_those_of_the_options():
    from sam2_blocks.hosts.ray import build_app

    deployment = build_app({"replicas": "3", "cpus": "4", "gpus": "0.5"})._bound_deployment
    assert deployment.num_replicas == 3
    assert deployment.ray_actor_options == {"num_cpus": 4, "num_gpus": 0.5}
    with pytest.raises(ValidationError, match=r"replica\n.*not permitted"):
        build_app({"replica": "3"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_quee": 5}, r"max_quee\n.*Unexpected keyword argument"),
        ({"max_queue": "many"}, r"max_queue\n.*valid integer"),
        ({"max_open_images": 0}, r"max_open_images\n.*greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    from sam2_blocks.hosts.ray import build_app

    with pytest.raises(ValidationError, match=message):
        build_app({"settings": settings})


def test_settings_may_be_text():
    from sam2_blocks.hosts.ray import build_app

    settings = {"max_queue": "5", "file_root": "pictures"}
    assert build_app({"settings": settings})._bound_deployment.max_ongoing_requests == 5


def test_a_pipeline_is_a_stage_of_a_data_set(cluster):
    from sam2_blocks.hosts.ray import PipelineStage

    rows = [
        {"image": str(PICTURES / name), "boxes": [[10.0, 10.0, 200.0, 200.0]]}
        for name in ("coffee.jpg", "none.jpg")
    ]
    document = {
        "pipeline_version": 1,
        "inputs": {
            "image": {"kind": "image"},
            "boxes": {"kind": "object_detection_prediction"},
        },
        "steps": {
            "segment": {
                "use": "sam2/segment@v1",
                "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
            }
        },
        "outputs": {"predictions": "$steps.segment.predictions"},
    }
    data = ray.data.from_items(rows).map_batches(
        PipelineStage, fn_constructor_args=[document], concurrency=1, batch_size=2
    )
    good, bad = data.take_all()
    [mask] = json.loads(good["predictions"])
    assert mask["segmentation"]["size"] == [400, 600]
    assert good["errors"] == ""
    assert bad["predictions"] is None
    assert "none.jpg: no such file" in bad["errors"]


def test_a_stage_runs_without_a_cluster():
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    pixels = np.stack([picture(seed, (400, 600)).pixels for seed in range(2)])
    out = stage({"image": pixels})
    assert out["errors"].tolist() == ["", ""]
    assert out["overlay"].shape == (2, 400, 600, 3)
    assert [len(json.loads(cell)) for cell in out["predictions"]] == [3, 3]


def test_a_missing_column_is_named():
    from sam2_blocks.errors import Sam2BlocksError
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    with pytest.raises(Sam2BlocksError, match=r"lacks the columns \['image'\]; it has \['x'\]"):
        stage({"x": [1]})


def stage_of(step, outputs, **options):
    from sam2_blocks.hosts.ray import PipelineStage

    inputs = {name: {"kind": kind} for name, kind in INPUTS.items()}
    document = {"pipeline_version": 1, "inputs": inputs, "steps": {"step": step}}
    return PipelineStage({**document, "outputs": outputs}, **options)


INPUTS = {"image": "image", "predictions": "rle_instance_segmentation_prediction"}
WIRED = {name: f"$inputs.{name}" for name in INPUTS}
DRAW = {"use": "draw/masks@v1", "with": WIRED}


@pytest.mark.parametrize(
    ("block", "output"), [("export/coco@v1", "annotations"), ("export/yolo@v1", "path")]
)
def test_a_step_that_writes_files_is_refused(block, output):
    from sam2_blocks.errors import PipelineError

    with pytest.raises(PipelineError, match=rf"steps\.step: {block} writes files, which a stage"):
        stage_of({"use": block, "with": WIRED}, {output: f"$steps.step.{output}"})


def test_a_column_of_errors_is_never_overwritten():
    from sam2_blocks.errors import PipelineError, Sam2BlocksError

    with pytest.raises(PipelineError, match=r"outputs\.errors: this column is for errors\. Rename"):
        stage_of(DRAW, {"errors": "$steps.step.image"})
    stage = stage_of(DRAW, {"picture": "$steps.step.image"})
    with pytest.raises(Sam2BlocksError, match="has a column 'errors' already"):
        stage({"image": [PICTURE.pixels], "predictions": [None], "errors": [""]})


def test_a_second_stage_has_errors_of_its_own():
    stage = stage_of(DRAW, {"errors": "$steps.step.image"}, errors_column="why")
    out = stage({"image": ["none.jpg"], "predictions": [None]})
    assert "none.jpg: no such file" in out["why"][0]
    assert out["errors"][0] is None

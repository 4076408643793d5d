from __future__ import annotations

import socket

import pytest
from pydantic import ValidationError

from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.hosts.ray.conftest import QUIET
from tests.service.conftest import as_request, box, picture

pytest.importorskip("ray.serve", reason="needs the extra ray")
httpx = pytest.importorskip("httpx")
pytestmark = QUIET

PICTURE = picture()
SEGMENT = {"image": as_request(PICTURE), "prompts": [box(10, 10, 60, 50)], "format": "rle"}


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
    answer = httpx.post(f"{url}/sam2/segment_image", json=SEGMENT, timeout=300)
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

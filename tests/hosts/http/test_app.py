from __future__ import annotations

import io
import time

import numpy as np
import pytest

from sam2_blocks.language.schema import step_schema
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.hosts.http.conftest import PICTURE, SEGMENT, GatedExecutor, refused
from tests.service.conftest import box, fresh

pytest.importorskip("fastapi", reason="needs the extra http")

from sam2_blocks.hosts.http import docs


@pytest.mark.parametrize("prompts", [{"prompts": [box(10, 10, 60, 50)]}, [box(10, 10, 60, 50)]])
def test_segment_answers_with_masks(connect, nano_executor, prompts):
    client = connect(fresh(nano_executor))
    response = client.post("/sam2/segment_image", json={**SEGMENT, "prompts": prompts})
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"predictions", "time", "inference_id"}
    [row] = body["predictions"]
    assert set(row) == {"masks", "confidence", "format"}
    assert rle_to_mask(coco_to_rle(row["masks"])).shape == PICTURE.hw


def test_binary_is_an_npz_octet_stream(connect, nano_executor):
    client = connect(fresh(nano_executor))
    response = client.post("/sam2/segment_image", json={**SEGMENT, "format": "binary"})
    assert response.headers["content-type"] == "application/octet-stream"
    arrays = np.load(io.BytesIO(response.content))
    assert arrays["masks"].shape == (1, *PICTURE.hw)
    response = client.post("/sam2/embed_image", json={**SEGMENT, "format": "binary"})
    assert "image_embed" in np.load(io.BytesIO(response.content))


def test_embed_then_segment_by_name(connect, nano_executor):
    client = connect(fresh(nano_executor))
    embedded = client.post(
        "/sam2/embed_image", json={"image": SEGMENT["image"], "image_id": "cat"}
    ).json()
    assert set(embedded) == {"image_id", "time", "inference_id"}
    again = client.post(
        "/sam2/segment_image", json={"image_id": "cat", "prompts": SEGMENT["prompts"]}
    )
    assert again.status_code == 200, again.text


def test_blocks_are_listed_and_shown_with_their_schema(connect, plugins):
    client = connect()
    listed = client.get("/blocks").json()
    assert {row["id"] for row in listed} == set(plugins.manifests)
    shown = client.get("/blocks/sam2/segment@v1").json()
    assert shown["manifest"]["id"] == "sam2/segment@v1"
    assert shown["schema"] == step_schema(plugins.manifests["sam2/segment@v1"])
    refused(client.get("/blocks/sam2/segmnt@v1"), 404, "Did you mean 'sam2/segment@v1'")


def test_a_pipeline_runs(connect, tmp_path):
    from ruamel.yaml import YAML

    example = docs.EXAMPLES["pipeline"]
    with (tmp_path / "masks.yaml").open("w") as file:
        YAML().dump(example["pipeline"], file)
    client = connect(pipelines=tmp_path)
    [row] = client.post("/pipelines/run", json=example).json()["outputs"]["predictions"]
    assert row["box_xyxy"] == [2, 2, 5, 5]
    assert client.get("/pipelines").json() == ["masks"]
    named = client.post("/pipelines/masks/run", json={"inputs": example["inputs"]})
    assert named.json()["outputs"]["predictions"][0]["box_xyxy"] == [2, 2, 5, 5]
    refused(client.post("/pipelines/mask/run", json={}), 404, "Did you mean 'masks'")


def test_health_and_readiness(connect):
    client = connect()
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "models": ["nano"]}
    client.app.state.service.drain()
    refused(client.get("/readyz"), 503, "shutting down")
    assert client.get("/healthz").status_code == 200
    response = client.post("/sam2/segment_image", json=SEGMENT)
    refused(response, 503, "shutting down")
    assert response.headers["retry-after"] == "1"


def test_the_key_guards_everything_but_health_and_the_openapi_pages(connect):
    client = connect(api_key="key")
    for path in ("/blocks", "/blocks/sam2/embed@v1", "/pipelines", "/metrics"):
        refused(client.get(path), 401, "missing or wrong")
        assert client.get(path, params={"api_key": "key"}).status_code == 200
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/redoc"):
        assert client.get(path).status_code == 200


def test_503_not_ready_while_a_model_takes_up_nothing_new(connect):
    executor = GatedExecutor()
    client = connect(executor, deadline_s=1)
    assert client.get("/readyz").status_code == 200
    while not executor.entered.is_set():  # a decoder may take its time to start
        refused(client.post("/sam2/segment_image", json=SEGMENT), 504, "no answer within 1 s")
    time.sleep(1.1)
    refused(client.get("/readyz"), 503, "taken up nothing new: sam2-blocks-device-nano for")
    assert client.get("/healthz").status_code == 200
    executor.gate.set()
    until = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.hosts.http.conftest import SEGMENT, GatedExecutor, refused
from tests.service.conftest import as_request, picture

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")

from sam2_blocks.hosts.http import create_app, docs  # noqa: E402


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the body must be a JSON object, got list"),
        (b'{"image_id": "\xff"}', "the body is not JSON"),
        (b'{"image_id": "\\ud800"}', "the body is not JSON"),
        (b"[" * 10_000, "the body is not JSON"),
        (b"{}", "give image, or the image_id"),
        (b'{"image_id": "a", "prompts": [{"box": {"x": 1}}]}', "prompts.prompts.0.box.y"),
        (b'{"image_id": "a", "prompts": [{"points": [{"x": NaN}]}]}', "finite"),
        (b'{"image_id": "a", "format": "mask"}', "format: Input should be"),
        (b'{"image": {"type": "numpy_array", "value": "a"}}', "image.type"),
    ],
)
def test_422_malformed(connect, body, message):
    refused(connect().post("/sam2/segment_image", content=body), 422, message)


def test_422_lists_at_most_twenty_problems(connect):
    response = connect().post("/sam2/segment_image", json={**SEGMENT, "prompts": [{}] * 100})
    assert len(refused(response, 422, "a prompt needs a box or points")["detail"]) == 20


def test_422_all_problems_of_a_pipeline(connect):
    wrong = json.loads(json.dumps(docs.EXAMPLES["pipeline"]))
    wrong["pipeline"]["steps"]["segment"]["use"] = "sam2/segmnt@v1"
    wrong["pipeline"]["inputs"]["image"]["kind"] = "imag"
    body = refused(connect().post("/pipelines/run", json=wrong), 422, "Did you mean")
    assert [problem["loc"] for problem in body["detail"]] == [
        ["inputs", "image", "kind"],
        ["steps", "segment", "use"],
    ]


def test_400_bad_image(connect):
    image = {"type": "base64", "value": "aGVsbG8="}
    response = connect().post("/sam2/segment_image", json={**SEGMENT, "image": image})
    refused(response, 400, "image: image (5 bytes): not a picture")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None, "image_id": "nobody"}, "'nobody' is not known"),
        ({"sam2_version_id": "hiera_huge"}, "there is no model 'hiera_huge' here"),
    ],
)
def test_404_unknown_id_or_model(connect, fields, message):
    refused(connect().post("/sam2/segment_image", json={**SEGMENT, **fields}), 404, message)


def test_404_and_405_of_the_router_are_readable_too(connect):
    client = connect()
    refused(client.get("/none"), 404, "Not Found: there is no /none here; /docs lists")
    refused(client.get("/sam2/segment_image"), 405, "segment_image wants POST, got GET")


def test_409_conflict(connect):
    client = connect()
    client.post("/sam2/embed_image", json={"image": SEGMENT["image"], "image_id": "cat"})
    other = {"image": as_request(picture(1)), "image_id": "cat"}
    refused(client.post("/sam2/embed_image", json=other), 409, "stands for other pixels already")


def test_429_full_says_when_to_try_again(connect):
    executor = GatedExecutor()
    client = connect(executor, max_queue=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/sam2/segment_image", json=SEGMENT)
        assert executor.entered.wait(120)
        response = client.post("/sam2/segment_image", json=SEGMENT)
        executor.gate.set()
        assert first.result().status_code == 200
    refused(response, 429, "1 requests are waiting already")
    assert response.headers["retry-after"] == "1"
    assert client.post("/sam2/segment_image", json=SEGMENT).status_code == 200


def test_503_out_of_memory(connect):
    from sam2_blocks.errors import ModelError

    class Full(FakeExecutor):
        def embed(self, images):
            raise ModelError("the device has not enough memory left")

    refused(connect(Full("nano")).post("/sam2/segment_image", json=SEGMENT), 503, "enough memory")


def test_504_deadline(connect):
    executor = GatedExecutor()
    client = connect(executor, deadline_s=0.2)
    refused(client.post("/sam2/segment_image", json=SEGMENT), 504, "no answer within 0.2 s")
    executor.gate.set()
    assert client.get("/healthz").status_code == 200


def test_an_unforeseen_error_tells_no_details(plugins):
    class Broken(FakeExecutor):
        def embed(self, images):
            raise RuntimeError("secret")

    app = create_app(ServedModels({"nano": Broken("nano")}), ServiceSettings(), plugins=plugins)
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        response = client.post("/sam2/segment_image", json=SEGMENT)
    refused(response, 500, "an error inside the service")
    assert "secret" not in response.text


def test_422_a_name_that_is_too_long(connect):
    client = connect()
    for field, most in (("model_id", 256), ("image_id", 512)):
        response = client.post("/sam2/segment_image", json={**SEGMENT, field: "a" * 10**6})
        refused(response, 422, f"{field}: String should have at most {most} characters")


def test_422_a_pipeline_with_too_many_steps(connect):
    pipeline = docs.EXAMPLES["pipeline"]["pipeline"]
    steps = {f"step{number}": pipeline["steps"]["segment"] for number in range(101)}
    body = {**docs.EXAMPLES["pipeline"], "pipeline": {**pipeline, "steps": steps}}
    response = connect().post("/pipelines/run", json=body)
    refused(response, 422, "pipeline: there are 101 steps, the limit is 100")


def test_504_a_pipeline_that_takes_too_long(connect):
    executor = GatedExecutor()
    client = connect(executor, deadline_s=0.2)
    response = client.post("/pipelines/run", json=docs.EXAMPLES["pipeline"])
    refused(response, 504, "no answer within 0.2 s")
    executor.gate.set()


@pytest.mark.parametrize(
    "request_parts",
    [
        {},
        {"headers": {"Authorization": "Bearer other"}},
        {"headers": {"Authorization": "key"}},
        {"params": {"api_key": ""}},
        {"json": {**SEGMENT, "api_key": "ke"}},
        {"json": {**SEGMENT, "api_key": ["key"]}},
    ],
)
def test_401_without_the_key(connect, request_parts):
    client = connect(api_key="key")
    response = client.post("/sam2/segment_image", **{"json": SEGMENT, **request_parts})
    refused(response, 401, "the API key is missing or wrong")

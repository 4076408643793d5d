"""The routes, in this process; what needs real sockets is in `test_http_server`."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.language.schema import step_schema
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import as_request, box, fresh, nano_executor, picture, to_base64

pytest.importorskip("fastapi", reason="needs the extra http")
pytest.importorskip("httpx")
testclient = pytest.importorskip("fastapi.testclient")

from sam2_blocks.hosts.http import create_app, docs  # noqa: E402

__all__ = ["nano_executor"]

PICTURE = picture()
SEGMENT = {"image": as_request(PICTURE), "prompts": [box(10, 10, 60, 50)], "format": "rle"}


class GatedExecutor(FakeExecutor):
    """Embeds only while its gate is open."""

    def __init__(self):
        super().__init__("nano")
        self.gate = threading.Event()
        self.entered = threading.Event()

    def embed(self, images):
        self.entered.set()
        assert self.gate.wait(20)
        return super().embed(images)


@pytest.fixture(scope="module")
def plugins():
    """Loaded once: no test here changes them."""
    return load_plugins(strict=True, points=[])


@pytest.fixture
def connect(plugins):
    """``connect(executor, setting=value)``: a client of an app of its own."""
    clients = []

    def make(executor=None, pipelines=None, **settings):
        models = ServedModels({"nano": executor or FakeExecutor("nano")})
        app = create_app(models, ServiceSettings(**settings), plugins=plugins, pipelines=pipelines)
        client = testclient.TestClient(app)
        clients.append(client.__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def refused(response, status, message):
    """Check status and message, where inference-sdk and others look for it."""
    body = response.json()
    assert response.status_code == status, body
    assert message in body["message"], body
    assert body["detail"]
    return body


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [{"prompts": [box(10, 10, 60, 50)]}, [box(10, 10, 60, 50)]])
def test_segment_answers_with_masks(connect, nano_executor, prompts):
    client = connect(fresh(nano_executor))
    response = client.post("/sam2/segment_image", json={**SEGMENT, "prompts": prompts})
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"predictions", "time"}
    [row] = body["predictions"]
    assert set(row) == {"masks", "confidence", "format"}
    assert rle_to_mask(coco_to_rle(row["masks"])).shape == PICTURE.hw


def test_automatic_masks_as_json_and_as_a_form(connect):
    client = connect()
    image = {"image": SEGMENT["image"], "format": "rle"}
    body = client.post(
        "/sam2/segment_image", json={**image, "automatic_masks": {"points_per_side": 2}}
    ).json()
    assert set(body) == {"predictions", "time"}
    assert len(body["predictions"]) == 4
    form = client.post(
        "/sam2/segment_image",
        files={"image": base64.b64decode(SEGMENT["image"]["value"])},
        data={"automatic_masks": '{"points_per_side": 2}', "format": "rle"},
    )
    assert form.json()["predictions"] == body["predictions"]
    both = client.post("/sam2/segment_image", json={**SEGMENT, "automatic_masks": True})
    problem = refused(both, 422, "automatic_masks: give prompts or automatic_masks, not both")
    assert problem["detail"][0]["loc"] == ["automatic_masks"]


def test_the_type_of_a_form_may_be_written_in_capitals(connect):
    client = connect()
    form = {"prompts": json.dumps(SEGMENT["prompts"]), "format": "rle"}
    upload = {"image": base64.b64decode(SEGMENT["image"]["value"])}
    request = client.build_request("POST", "/sam2/segment_image", data=form, files=upload)
    usual = request.headers["content-type"]
    request.headers["content-type"] = usual.replace("multipart/form-data", "Multipart/Form-Data")
    response = client.send(request)
    assert response.status_code == 200, response.text


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
    assert set(embedded) == {"image_id", "time"}
    again = client.post(
        "/sam2/segment_image", json={"image_id": "cat", "prompts": SEGMENT["prompts"]}
    )
    assert again.status_code == 200, again.text


def test_a_form_carries_the_image_as_a_file(connect):
    client = connect()
    upload = {"image": ("a.png", io.BytesIO(_png()), "image/png")}
    by_field = client.post(
        "/sam2/segment_image",
        files=upload,
        data={"prompts": json.dumps(SEGMENT["prompts"]), "format": "rle"},
    )
    upload = {"image": ("a.png", io.BytesIO(_png()), "image/png")}
    as_one = client.post(
        "/sam2/segment_image",
        files=upload,
        data={"request": json.dumps({"prompts": SEGMENT["prompts"], "format": "rle"})},
    )
    expected = client.post("/sam2/segment_image", json=SEGMENT).json()["predictions"]
    assert by_field.json()["predictions"] == as_one.json()["predictions"] == expected


def _png():
    import base64

    return base64.b64decode(to_base64(PICTURE))


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


def test_a_pipeline_takes_its_image_from_a_form(connect):
    form = {"pipeline": json.dumps(docs.EXAMPLES["pipeline"]["pipeline"])}
    upload = {"image": base64.b64decode(docs.PICTURE)}
    answer = connect().post("/pipelines/run", data=form, files=upload).json()
    assert answer["outputs"]["predictions"][0]["box_xyxy"] == [2, 2, 5, 5]


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


def test_metrics_tell_what_happened(connect, nano_executor):
    client = connect(fresh(nano_executor))
    for _ in range(3):
        client.post("/sam2/segment_image", json=SEGMENT)
    client.post("/sam2/segment_image", json={})
    text = client.get("/metrics").text
    for line in (
        'sam2_blocks_requests_total{route="/sam2/segment_image",status="200"} 3.0',
        'sam2_blocks_requests_total{route="/sam2/segment_image",status="422"} 1.0',
        'sam2_blocks_request_seconds_count{route="/sam2/segment_image"} 4.0',
        'sam2_blocks_batch_size_count{stage="encode"} 1.0',
        'sam2_blocks_encoder_runs_total{model="nano"} 1.0',
        'sam2_blocks_embedding_cache_hits_total{model="nano",tier="device"} 2.0',
        'sam2_blocks_embedding_cache_misses_total{model="nano",tier="device"} 1.0',
        'sam2_blocks_embedding_cache_evictions_total{model="nano",tier="device"} 0.0',
        'sam2_blocks_embedding_cache_entries{model="nano",tier="device"} 1.0',
        "sam2_blocks_queue 0.0",
        "# TYPE sam2_blocks_gpu_memory_bytes gauge",
    ):
        assert line in text


def test_every_example_of_the_openapi_page_runs(connect, tmp_path):
    from ruamel.yaml import YAML

    with (tmp_path / "name.yaml").open("w") as file:
        YAML().dump(docs.EXAMPLES["pipeline"]["pipeline"], file)
    client = connect(pipelines=tmp_path)
    page = client.get("/openapi.json").json()
    ran = []
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                example = operation["requestBody"]["content"]["application/json"]["example"]
                response = client.post(path.format(name="name"), json=example)
                assert response.status_code == 200, response.text
                ran.append(path)
    assert len(ran) == 4


# --- statuses ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nx"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="'),
    ],
)
def test_422_malformed_form(connect, content_type, body):
    response = connect().post(
        "/sam2/segment_image", content=body, headers={"content-type": content_type}
    )
    assert response.status_code == 422, response.text


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
    refused(client.get("/none"), 404, "Not Found")
    refused(client.get("/sam2/segment_image"), 405, "Method Not Allowed")


def test_409_conflict(connect):
    client = connect()
    client.post("/sam2/embed_image", json={"image": SEGMENT["image"], "image_id": "cat"})
    other = {"image": as_request(picture(1)), "image_id": "cat"}
    refused(client.post("/sam2/embed_image", json=other), 409, "stands for other pixels already")


def test_413_too_many_bytes(connect):
    client = connect(max_body_bytes=1000)
    body = json.dumps({"image_id": "a" * 2000}).encode()
    refused(client.post("/sam2/segment_image", content=body), 413, "larger than 1000 bytes")
    chunked = client.post("/sam2/segment_image", content=iter([body[:900], body[900:]]))
    refused(chunked, 413, "larger than 1000 bytes")


def test_413_too_many_values(connect):
    body = {"image_id": "a", "prompts": [[]] * 200_000}
    refused(connect().post("/sam2/segment_image", json=body), 413, "more than 200000 values")


def test_429_full_says_when_to_try_again(connect):
    executor = GatedExecutor()
    client = connect(executor, max_queue=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/sam2/segment_image", json=SEGMENT)
        assert executor.entered.wait(10)
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


def test_an_unforeseen_error_is_counted_as_500(plugins):
    class Broken(FakeExecutor):
        def embed(self, images):
            raise RuntimeError("broken")

    app = create_app(ServedModels({"nano": Broken("nano")}), ServiceSettings(), plugins=plugins)
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        client.post("/sam2/segment_image", json=SEGMENT)
        text = client.get("/metrics").text
    assert 'sam2_blocks_requests_total{route="/sam2/segment_image",status="500"} 1.0' in text
    assert 'status="499"' not in text


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


def test_the_example_of_a_pipeline_needs_no_model_in_particular(plugins):
    models = ServedModels({"other": FakeExecutor("other")})
    with testclient.TestClient(create_app(models, ServiceSettings(), plugins=plugins)) as client:
        response = client.post("/pipelines/run", json=docs.EXAMPLES["pipeline"])
    assert response.status_code == 200, response.text


# --- the API key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_parts",
    [
        {"headers": {"Authorization": "Bearer key-ü".encode()}},
        {"headers": {"X-API-Key": "key-ü".encode()}},
        {"params": {"api_key": "key-ü"}},
        {"json": {**SEGMENT, "api_key": "key-ü"}},
    ],
)
def test_the_api_key_may_travel_in_header_query_or_body(connect, request_parts):
    client = connect(api_key="key-ü")
    response = client.post("/sam2/segment_image", **{"json": SEGMENT, **request_parts})
    assert response.status_code == 200, response.text


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


def test_the_key_guards_everything_but_health_and_the_openapi_pages(connect):
    client = connect(api_key="key")
    for path in ("/blocks", "/blocks/sam2/embed@v1", "/pipelines", "/metrics"):
        refused(client.get(path), 401, "missing or wrong")
        assert client.get(path, params={"api_key": "key"}).status_code == 200
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/redoc"):
        assert client.get(path).status_code == 200


def test_every_key_is_compared_in_constant_time(connect, monkeypatch):
    compared = []

    def compare(given, wanted):
        compared.append(given)
        return given == wanted

    monkeypatch.setattr("hmac.compare_digest", compare)
    headers = {"Authorization": "Bearer a", "X-API-Key": "b"}
    body = {**SEGMENT, "api_key": "d"}
    client = connect(api_key="key")
    client.post("/sam2/segment_image", json=body, headers=headers, params={"api_key": "c"})
    assert compared == [b"a", b"b", b"c", b"d"]


def test_time_is_in_seconds(connect):
    started = time.perf_counter()
    answered = connect().post("/sam2/segment_image", json=SEGMENT).json()["time"]
    assert 0 <= answered <= time.perf_counter() - started

from __future__ import annotations

import gzip

import numpy as np
import pytest

from sam2_blocks import __version__
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.hosts.http.conftest import PICTURE, SEGMENT, refused
from tests.service.conftest import as_request, box, fresh

cv2 = pytest.importorskip("cv2")


def test_name_and_version_are_told_as_there(connect):
    client = connect()
    told = client.get("/info").json()
    assert (told["name"], told["version"]) == ("sam2_blocks", __version__)
    assert told.keys() == {"name", "version", "uuid"}
    assert client.get("/").json() == told


def test_readiness_follows_the_service(connect):
    client = connect()
    assert client.get("/readiness").json() == {"status": "ready"}
    client.app.state.service.drain()
    answer = client.get("/readiness")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})


def test_models_are_listed_as_there(connect):
    [model] = connect().get("/model/registry").json()["models"]
    assert (model["model_id"], model["task_type"]) == ("sam2/nano", "instance-segmentation")
    assert {"batch_size", "input_height", "input_width"} <= model.keys()
    refused(connect(api_key="secret").get("/model/registry"), 401, "API key")


def test_visual_prompts_of_sam3_are_answered_by_our_model(connect):
    client = connect()
    given = {**SEGMENT, "model_id": "sam3/sam3_interactive"}
    answer = client.post("/sam3/visual_segment", json=given).json()
    same = client.post("/sam2/segment_image", json={**SEGMENT, "sam2_version_id": "nano"}).json()
    assert answer["predictions"] == same["predictions"]


def test_an_image_embedded_for_sam3_is_segmented_by_its_name(connect, nano_executor):
    client = connect(fresh(nano_executor))
    image = {"image": SEGMENT["image"], "model_id": "sam3/sam3_interactive", "image_id": "mine"}
    assert client.post("/sam3/embed_image", json=image).json()["image_id"] == "mine"
    by_name = {"image_id": "mine", "prompts": SEGMENT["prompts"], "format": "rle"}
    answer = client.post("/sam3/visual_segment", json=by_name).json()
    same = client.post("/sam2/segment_image", json=SEGMENT).json()
    assert answer["predictions"] == same["predictions"]


def test_answers_say_how_long_they_took_and_which_request_they_are_of(connect):
    answer = connect().post("/sam2/segment_image", json={**SEGMENT, "id": "mine"})
    assert answer.json()["inference_id"] == "mine"
    assert float(answer.headers["x-processing-time"]) > 0
    embedded = connect().post("/sam2/embed_image", json={"image": as_request(PICTURE)})
    assert embedded.json()["inference_id"]


def many():
    return {**SEGMENT, "prompts": [box(10, 10, 60, 50)] * 50, "sam2_version_id": "nano"}


@pytest.mark.parametrize("taken", ["gzip", "br, gzip;q=0.5", "*"])
def test_long_answers_are_packed_for_who_asks(connect, taken):
    headers = {"accept-encoding": taken}
    with connect().stream("POST", "/sam2/segment_image", json=many(), headers=headers) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(packed)
    assert len(gzip.decompress(packed)) > 2 * len(packed)


@pytest.mark.parametrize("taken", ["identity", "gzip;q=0", "br", "gzip;q=0.0, *;q=0"])
def test_others_get_plain_answers(connect, taken):
    answer = connect().post("/sam2/segment_image", json=many(), headers={"accept-encoding": taken})
    assert "content-encoding" not in answer.headers
    assert len(answer.json()["predictions"]) == 50


ASKED = {"origin": "https://a.example", "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        (None, None),
        ("https://b.example", None),
        ("https://b.example, https://a.example", "https://a.example"),
        ("*", "*"),
    ],
)
def test_pages_of_named_origins_may_call(connect, origins, allowed):
    client = connect(cors_origins=origins)
    asked = client.options("/sam2/segment_image", headers=ASKED)
    answer = client.post("/sam2/segment_image", json=many(), headers=ASKED)
    for got in (asked, answer):
        assert got.headers.get("access-control-allow-origin") == allowed
    assert "access-control-allow-credentials" not in answer.headers


def test_polygons_filled_by_opencv_are_the_mask(connect):
    client = connect()
    given = {**SEGMENT, "sam2_version_id": "nano"}
    [rle] = client.post("/sam2/segment_image", json=given).json()["predictions"]
    [polygon] = client.post("/sam2/segment_image", json={**given, "format": "json"}).json()[
        "predictions"
    ]
    canvas = np.zeros(PICTURE.hw, np.uint8)
    for ring in polygon["masks"]:
        cv2.fillPoly(canvas, [np.array(ring, np.int32)], 1)
    assert np.array_equal(canvas.astype(bool), rle_to_mask(coco_to_rle(rle["masks"])))


def test_a_slip_in_a_key_is_refused(connect):
    given = {"image": SEGMENT["image"], "promts": SEGMENT["prompts"]}
    refused(connect().post("/sam2/segment_image", json=given), 422, "Did you mean 'prompts'?")


def test_no_points_are_answered_as_no_prompt(connect):
    client = connect()
    given = {"image": SEGMENT["image"], "format": "rle", "sam2_version_id": "nano"}
    nothing = client.post("/sam2/segment_image", json=given).json()
    empty = client.post("/sam2/segment_image", json={**given, "prompts": [{"points": []}]}).json()
    assert empty["predictions"] == nothing["predictions"]
    assert empty["unprompted"] is nothing["unprompted"] is True

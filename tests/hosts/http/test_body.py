from __future__ import annotations

import base64
import gzip
import io
import json

import pytest

from tests.hosts.http.conftest import PICTURE, SEGMENT, refused
from tests.service.conftest import to_base64

pytest.importorskip("fastapi", reason="needs the extra http")

from sam2_blocks.hosts.http import docs


def test_automatic_masks_as_json_and_as_a_form(connect):
    client = connect()
    image = {"image": SEGMENT["image"], "format": "rle"}
    body = client.post(
        "/sam2/segment_image", json={**image, "automatic_masks": {"points_per_side": 2}}
    ).json()
    assert set(body) == {"predictions", "time", "inference_id"}
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


def test_a_compressed_body_is_named_as_such(connect):
    body = gzip.compress(json.dumps(SEGMENT).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = connect().post("/sam2/segment_image", content=body, headers=headers)
    refused(response, 422, "the body is compressed ('gzip'); send it as it is.")


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


def test_a_pipeline_takes_its_image_from_a_form(connect):
    form = {"pipeline": json.dumps(docs.EXAMPLES["pipeline"]["pipeline"])}
    upload = {"image": base64.b64decode(docs.PICTURE)}
    answer = connect().post("/pipelines/run", data=form, files=upload).json()
    assert answer["outputs"]["predictions"][0]["box_xyxy"] == [2, 2, 5, 5]


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


def test_413_too_many_bytes(connect):
    client = connect(max_body_bytes=1000)
    body = json.dumps({"image_id": "a" * 2000}).encode()
    refused(client.post("/sam2/segment_image", content=body), 413, "larger than 1000 bytes")
    chunked = client.post("/sam2/segment_image", content=iter([body[:900], body[900:]]))
    refused(chunked, 413, "larger than 1000 bytes")


def test_413_too_many_values(connect):
    body = {"image_id": "a", "prompts": [[]] * 200_000}
    refused(connect().post("/sam2/segment_image", json=body), 413, "more than 200000 values")


@pytest.mark.parametrize("mark", ["[],", "{},", "0,", '"",'])
def test_413_more_values_than_any_request_has_before_they_are_made(connect, mark):
    content = b'{"prompts": [' + (mark * 500_000).encode() + b"0]}"
    response = connect().post("/sam2/segment_image", content=content)
    refused(response, 413, "the body holds more than 200000 values")

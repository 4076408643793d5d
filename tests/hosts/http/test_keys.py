from __future__ import annotations

import pytest

from tests.hosts.http.conftest import SEGMENT, refused
from tests.service.conftest import as_request, fresh, picture

pytest.importorskip("fastapi", reason="needs the extra http")


@pytest.mark.parametrize(
    "request_parts",
    [
        {"headers": {"Authorization": "Bearer key-ü".encode()}},
        {"auth": ("anybody", "key-ü".encode())},
        {"headers": {"X-API-Key": "key-ü".encode()}},
        {"params": {"api_key": "key-ü"}},
        {"json": {**SEGMENT, "api_key": "key-ü"}},
    ],
)
def test_the_api_key_may_travel_in_header_query_or_body(connect, request_parts):
    client = connect(api_key="key-ü")
    response = client.post("/sam2/segment_image", **{"json": SEGMENT, **request_parts})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("token", ["", "no base64", "a2V5", "Omtlzzz="])
def test_a_password_that_is_none_lets_nobody_in(connect, token):
    headers = {"Authorization": f"Basic {token}"}
    refused(connect(api_key="key").get("/blocks", headers=headers), 401, "missing or wrong")


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
    client.post("/sam2/segment_image", json=body)
    assert compared == [b"a", b"b", b"c", b"d"]


def test_a_wrong_key_before_the_body_is_refused_before_the_body_is_read(connect):
    client = connect(api_key="key", max_body_bytes=10)
    response = client.post("/sam2/segment_image", content=b"{" * 50, headers={"X-API-Key": "no"})
    refused(response, 401, "the API key is missing or wrong")


def test_any_of_several_keys_lets_in_and_names_are_those_of_a_key(connect, nano_executor):
    client = connect(fresh(nano_executor), api_key="one, two")
    named = {**SEGMENT, "image_id": "cat"}
    by_name = {key: value for key, value in named.items() if key != "image"}

    def ask(key, body):
        return client.post("/sam2/segment_image", json=body, headers={"X-API-Key": key})

    assert ask("one", named).status_code == 200
    assert ask("one", by_name).status_code == 200
    refused(ask("two", by_name), 404, "image_id 'cat' is not known to model")
    other = {**named, "image": as_request(picture(1))}
    assert ask("two", other).status_code == 200
    refused(ask("one", other), 409, "image_id 'cat' stands for other pixels already")
    refused(ask("one, two", by_name), 401, "the API key is missing or wrong")


def test_the_automatic_name_of_an_image_is_no_way_to_it_for_others(connect, nano_executor):
    client = connect(fresh(nano_executor), api_key="one,two")
    body = {"image": SEGMENT["image"], "api_key": "one"}
    name = client.post("/sam2/embed_image", json=body).json()["image_id"]
    by_name = {"image_id": name, "prompts": SEGMENT["prompts"], "format": "rle"}
    for key, status in (("one", 200), ("two", 404)):
        response = client.post("/sam2/segment_image", json={**by_name, "api_key": key})
        assert response.status_code == status, response.text


def test_nobody_starts_from_logits_that_another_key_kept(connect, nano_executor):
    client = connect(fresh(nano_executor), api_key="one,two")

    def ask(key, points, **fields):
        prompts = [{"points": [{"x": x, "y": 20, "positive": True} for x in points]}]
        body = {**SEGMENT, "prompts": prompts, "api_key": key, **fields}
        return client.post("/sam2/segment_image", json=body).json()["predictions"]

    alone = ask("two", [20, 50], load_logits_from_cache=True)
    ask("one", [20], save_logits_to_cache=True)
    assert ask("two", [20, 50], load_logits_from_cache=True) == alone
    assert ask("one", [20, 50], load_logits_from_cache=True) != alone

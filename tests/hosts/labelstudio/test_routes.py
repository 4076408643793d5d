from __future__ import annotations

import pytest

from tests.hosts.http.conftest import refused
from tests.hosts.labelstudio.projects import asked, click

SETUP = {
    "project": "1.1700000000",
    "schema": "<View/>",
    "hostname": "http://localhost:8080",
    "access_token": "theirs",
    "extra_params": None,
}


def test_a_project_is_connected(connect):
    client = connect()
    assert client.get("/health").json() == {"status": "UP", "model_class": "sam2_blocks"}
    version = client.post("/setup", json=SETUP).json()["model_version"]
    assert version.endswith(" nano")
    assert client.get("/versions").json() == {"versions": [version]}
    [made] = client.post("/predict", json=asked(click(8, 9))).json()["results"]
    assert made["model_version"] == version


def test_nothing_is_learnt_from_events(connect):
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "annotation": {}}
    answer = connect().post("/webhook", json=event)
    assert answer.json() == {"status": "ok", "result": "nothing is learnt from ANNOTATION_CREATED"}


def test_it_is_no_backend_unless_it_shall_be(connect):
    client = connect(label_studio=False)
    for path in ("/setup", "/predict", "/webhook"):
        refused(client.post(path, json={}), 404, "Not Found")
    refused(client.get("/health"), 404, "Not Found")


def test_the_key_is_the_password_of_basic_authentication(connect):
    client = connect(api_key="key")
    for call in (client.get("/health"), client.post("/setup", json=SETUP)):
        refused(call, 401, "missing or wrong")
    refused(client.get("/health", auth=("sam2", "other")), 401, "missing or wrong")
    assert client.get("/health", auth=("sam2", "key")).status_code == 200
    assert client.post("/setup", json=SETUP, auth=("sam2", "key")).status_code == 200


def test_it_is_down_while_the_service_ends(connect):
    client = connect()
    client.app.state.service.drain()
    refused(client.get("/health"), 503, "shutting down")


def test_why_not_is_in_the_log_since_label_studio_shows_the_status_alone(connect, caplog):
    refused(connect().post("/predict", json=asked(click(8, 9, "fork"))), 422, "'fork' is none of")
    assert "/predict: the label 'fork' is none of 'mask'" in caplog.text


def test_tasks_come_with_all_their_brushes(connect):
    body = asked(click(8, 9))
    body["tasks"][0]["annotations"] = [{"result": [{"value": {"rle": [0] * 300_000}}]}]
    assert connect().post("/predict", json=body).status_code == 200


@pytest.mark.parametrize("body", [{}, {"tasks": 3, "label_config": ""}, {"tasks": [3]}])
def test_malformed_requests(connect, body):
    refused(connect().post("/predict", json=body), 422, "tasks")

from __future__ import annotations

import base64
import json
import threading
import time

import pytest

from sam2_blocks.testing import FakeExecutor, FakeTrackSession
from tests.hosts.http.conftest import PICTURE, SEGMENT, refused
from tests.service.conftest import box, to_base64

pytest.importorskip("fastapi", reason="needs the extra http")

FRAME = {"image": SEGMENT["image"]}
START = {**FRAME, "prompts": [box(10, 10, 60, 50)], "format": "rle"}


class Remembering(FakeExecutor):
    """Remembers its sessions."""

    def __init__(self):
        super().__init__("nano")
        self.sessions = []

    def track(self, settings):
        self.sessions.append(super().track(settings))
        return self.sessions[-1]


def test_a_video_is_followed_frame_by_frame(connect):
    client = connect()
    first = client.post("/track", json=START).json()
    address = f"/track/{first['session_id']}"
    assert [row["state"] for row in first["frames"][0]["predictions"]] == ["new"]
    answer = client.post(f"{address}/frames", json=FRAME).json()
    [frame] = answer["frames"]
    [row] = frame["predictions"]
    assert (frame["frame_index"], row["tracker_id"], row["state"]) == (1, 1, "tracked")
    assert row["masks"] == first["frames"][0]["predictions"][0]["masks"]
    assert row["format"] == "rle"
    assert set(answer) == {"inference_id", "session_id", "frames", "time"}
    shown = client.get(address).json()
    assert (shown["frames"], shown["tracker_ids"]) == (2, [1])
    assert (shown["width"], shown["height"]) == (80, 60)
    assert 290 < shown["expires_in"] <= 300
    assert client.delete(address).json()["frames"] == 2
    for response in (
        client.get(address),
        client.delete(address),
        client.post(f"{address}/frames", json=FRAME),
    ):
        refused(response, 404, "there is no session")


def test_a_frame_may_be_uploaded(connect):
    client = connect()
    session = client.post("/track", json={}).json()["session_id"]
    upload = {"image": ("frame.png", base64.b64decode(to_base64(PICTURE)))}
    fields = {"prompts": json.dumps([box(10, 10, 60, 50)]), "format": "rle"}
    response = client.post(f"/track/{session}/frames", files=upload, data=fields)
    assert response.json()["frames"][0]["predictions"][0]["masks"]["size"] == [60, 80]
    response = client.post(f"/track/{session}/frames", data={"removals": "[1]"}, files={"x": b"x"})
    assert response.json()["frames"][0]["predictions"] == []


def test_a_bad_picture_midway_is_one_error(connect):
    client = connect()
    session = client.post("/track", json=START).json()["session_id"]
    bad = {"image": {"type": "base64", "value": "bm8gcGljdHVyZQ=="}}
    frames = {"frames": [FRAME, bad, FRAME]}
    answer = client.post(f"/track/{session}/frames", json=frames).json()["frames"]
    assert [frame["frame_index"] for frame in answer] == [1, None, 2]
    assert answer[1]["error"]["status"] == 400
    assert answer[1]["error"]["message"].startswith("frames[1].image: ")
    refused(client.post(f"/track/{session}/frames", json=bad), 400, "image: ")
    assert client.get(f"/track/{session}").json()["frames"] == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give a frame: image, prompts, corrections or removals"),
        ({**FRAME, "promts": []}, "Did you mean 'prompts'?"),
        ({**FRAME, "prompts": [{"points": []}]}, "a prompt needs a box, at least one point"),
        ({"corrections": [box(1, 1, 5, 5)]}, "corrections.0.tracker_id: Field required"),
        ({"removals": [9]}, "removals: no object 9 is followed"),
    ],
)
def test_what_cannot_be_understood_is_422(connect, fields, message):
    client = connect()
    session = client.post("/track", json=START).json()["session_id"]
    refused(client.post(f"/track/{session}/frames", json=fields), 422, message)


def test_a_session_is_its_keys_alone(connect):
    client = connect(api_key="one, two", max_tracks_per_key=1)
    one, two = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
    session = client.post("/track", json=START, headers=one).json()["session_id"]
    address = f"/track/{session}"
    for ask in (client.get, client.delete):
        refused(ask(address), 401, "the API key is missing or wrong")
        refused(ask(address, headers=two), 404, "there is no session")
    response = client.post(f"{address}/frames", json=FRAME, headers=two)
    refused(response, 404, "there is no session")
    response = client.post("/track", json=START, headers=one)
    refused(response, 429, "this key has 1 sessions, the limit is 1")
    assert response.headers["Retry-After"]
    assert client.post("/track", json=START, headers=two).status_code == 200
    in_body = {**FRAME, "api_key": "one"}
    assert client.post(f"{address}/frames", json=in_body).status_code == 200


def test_sessions_end_by_themselves_and_are_counted(connect, monkeypatch):
    executor = Remembering()
    monkeypatch.setattr("sam2_blocks.service.tracks.SWEEP_S", 0.05)
    client = connect(executor, track_idle_s=600)
    session = client.post("/track", json=START).json()["session_id"]
    text = client.get("/metrics").text
    for line in (
        "sam2_blocks_track_sessions 1.0",
        "sam2_blocks_track_objects 1.0",
        "sam2_blocks_track_bytes 0.0",
        "sam2_blocks_track_frames_total 1.0",
        "sam2_blocks_track_expired_total 0.0",
        'sam2_blocks_requests_total{route="/track",status="200"} 1.0',
    ):
        assert line in text
    monkeypatch.setattr(client.app.state.tracks.table, "_clock", lambda: time.monotonic() + 601)
    deadline = time.monotonic() + 60
    while not executor.sessions[0].closed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert executor.sessions[0].closed
    refused(client.get(f"/track/{session}"), 404, "sessions end after 600 s without a request")
    text = client.get("/metrics").text
    assert "sam2_blocks_track_sessions 0.0" in text
    assert "sam2_blocks_track_expired_total 1.0" in text


def test_sessions_are_freed_when_the_service_stops(plugins):
    from fastapi.testclient import TestClient

    from sam2_blocks.hosts.http import create_app
    from sam2_blocks.service import ServedModels, ServiceSettings

    executor = Remembering()
    app = create_app(ServedModels({"nano": executor}), ServiceSettings(), plugins=plugins)
    with TestClient(app) as client:
        client.post("/track", json=START)
        assert not executor.sessions[0].closed
    assert executor.sessions[0].closed


class Gated(FakeTrackSession):
    """Takes its second frame only once its gate is open."""

    gate = threading.Event()

    def step(self, *given):
        assert not self.frames or self.gate.wait(120)
        return super().step(*given)


def test_a_deadline_leaves_the_session_usable(connect):
    executor = FakeExecutor("nano")
    executor.track = Gated
    client = connect(executor, deadline_s=4)
    client.post("/sam2/embed_image", json=FRAME)  # what decodes pictures has begun
    while (begun := client.post("/track", json=START)).status_code == 504:
        pass  # on a very busy machine
    session = begun.json()["session_id"]
    response = client.post(f"/track/{session}/frames", json=FRAME)
    refused(response, 504, "no answer within 4 s")
    response = client.post(f"/track/{session}/frames", json=FRAME)
    refused(response, 409, "earlier frames of this session are not answered yet")
    Gated.gate.set()  # what the model has begun it finishes
    while response.status_code == 409:
        response = client.post(f"/track/{session}/frames", json=FRAME)
    assert response.json()["frames"][0]["frame_index"] == 2


def test_pages_of_allowed_origins_may_end_sessions(connect):
    client = connect(cors_origins="https://example.com")
    headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "DELETE"}
    response = client.options("/track/x", headers=headers)
    assert "DELETE" in response.headers["Access-Control-Allow-Methods"]


def test_videos_of_many_objects_take_turns_and_one_is_given_up(connect):
    """Nothing of one is seen in the other, through objects by the dozen and frames without any."""
    executor = Remembering()
    client = connect(executor)
    many = [box(x, y, x + 4, y + 4) for x in range(0, 70, 7) for y in range(0, 50, 10)]
    crowded = client.post("/track", json={**START, "prompts": many}).json()
    lonely = client.post("/track", json=START).json()
    for _ in range(25):
        for session, count in ((crowded, len(many)), (lonely, 1)):
            answer = client.post(f"/track/{session['session_id']}/frames", json=FRAME).json()
            assert len(answer["frames"][0]["predictions"]) == count
    removed = list(range(1, len(many) + 1, 2))
    address = f"/track/{crowded['session_id']}"
    answer = client.post(f"{address}/frames", json={**FRAME, "removals": removed}).json()
    ids = [row["tracker_id"] for row in answer["frames"][0]["predictions"]]
    assert ids == list(range(2, len(many) + 1, 2))
    again = {**FRAME, "prompts": [{**box(1, 1, 5, 5), "tracker_id": 1}]}
    answer = client.post(f"{address}/frames", json=again).json()
    assert sorted(row["tracker_id"] for row in answer["frames"][0]["predictions"]) == [1, *ids]
    client.delete(address)
    assert [session.closed for session in executor.sessions] == [True, False]
    answer = client.post(f"/track/{lonely['session_id']}/frames", json=FRAME).json()
    assert [row["tracker_id"] for row in answer["frames"][0]["predictions"]] == [1]
    assert answer["frames"][0]["frame_index"] == 26

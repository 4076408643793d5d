"""What Roboflow's own tests of its server and of its two adapters expect, asked of our routes.

Source: roboflow/inference, ``tests/inference``: ``integration_tests/test_sam2.py``,
``unit_tests/models/test_sam3_visual_segmentation.py`` and
``unit_tests/core/interfaces/http/test_cors.py``; ``inference_models/tests``:
``test_sam2_torch.py``, ``test_sam2_video.py``, ``test_sam2_predictions.py`` and
``test_sam2_video_predictions.py``; the same inputs and expectations, written anew.
``tests/hosts/upstream.py`` counts them.
"""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import Image
from tests.hosts.http.conftest import PICTURE, refused
from tests.service.conftest import as_request, fresh, picture, point

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")

from sam2_blocks.hosts.http import create_app  # noqa: E402

VERSIONS = ("hiera_small", "hiera_large", "hiera_tiny", "hiera_b_plus")
IMAGE = {"image": as_request(PICTURE)}
FIVE = {"points": [point(5, 5)]}
TWO_CLICKS = [{"points": [point(1, 1)]}, FIVE]


class Noting(FakeExecutor):
    """Notes the prompts it is asked for."""

    def __init__(self):
        super().__init__("nano")
        self.asked = []

    def segment(self, items, **options):
        self.asked += [list(prompts.prompts) for _, prompts in items]
        return super().segment(items, **options)


@pytest.fixture(scope="module")
def four_models():
    app = create_app(ServedModels({name: FakeExecutor(name) for name in VERSIONS}))
    with testclient.TestClient(app) as client:
        yield client


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("route", ["embed_image", "segment_image"])
def test_every_version_answers(four_models, version, route):
    request = {**IMAGE, "image_id": "test", "sam2_version_id": version}
    answer = four_models.post(f"/sam2/{route}", json=request)
    assert answer.status_code == 200
    data = answer.json()
    if route == "embed_image":
        assert data["image_id"] == "test"
    else:
        [row] = data["predictions"]
        assert row["masks"]


@pytest.fixture
def visual(connect):
    """``visual(field=…)``: the answer of the route for visual prompts; ``visual.executor``."""
    executor = Noting()
    client = connect(executor)

    def ask(**fields):
        answer = client.post("/sam3/visual_segment", json={**IMAGE, "format": "rle", **fields})
        assert answer.status_code == 200, answer.json()
        return answer.json()

    ask.executor, ask.client = executor, client
    return ask


@pytest.mark.parametrize("prompts", [TWO_CLICKS, TWO_CLICKS[:1]])
def test_there_is_one_prediction_a_prompt(visual, prompts):
    rows = visual(prompts={"prompts": prompts})["predictions"]
    assert len(rows) == len(prompts)
    assert {tuple(row["masks"]["size"]) for row in rows} == {PICTURE.hw}
    assert all(0 <= row["confidence"] <= 1 for row in rows)


def test_all_prompts_reach_the_model(visual):
    boxes = [(10, 10, 4, 4), (30, 30, 8, 8)]
    given = [{"box": dict(zip(("x", "y", "width", "height"), b, strict=True))} for b in boxes]
    visual(prompts={"prompts": given})
    [prompts] = visual.executor.asked
    assert [p.box_xyxy.tolist() for p in prompts] == [[8, 8, 12, 12], [26, 26, 34, 34]]


@pytest.fixture
def counted(connect, nano_executor):
    """``counted(request, …, setting=…)``: the embeddings that these requests had to make."""

    def ask(*requests, **settings):
        executor = fresh(nano_executor, ServiceSettings(**settings))
        client = connect(executor, **settings)
        answers = [client.post("/sam3/visual_segment", json=request) for request in requests]
        return executor.cache_stats().misses, answers

    return ask


NAMED = {**IMAGE, "image_id": "abc"}


def test_a_named_image_is_embedded_once(counted):
    made, answers = counted(NAMED, NAMED, {"image_id": "abc"})
    assert made == 1
    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_named_image_whose_embedding_is_gone_is_embedded_again(counted):
    other = {"image": as_request(picture(1))}
    made, answers = counted(NAMED, other, NAMED, embedding_entries=1)
    assert made == 3
    assert answers[2].json()["predictions"] == answers[0].json()["predictions"]


def test_an_image_without_a_name_is_embedded(counted):
    assert counted(IMAGE)[0] == 1


def test_a_wrong_prompt_is_the_error_and_nothing_is_embedded_for_it(counted):
    wrong = {"image_id": "abc", "prompts": [{"points": [{"x": "here", "y": 1}]}]}
    made, [_, answer] = counted(NAMED, wrong)
    refused(answer, 422, "x")
    assert made == 1


@pytest.fixture
def nano(nano_executor):
    """A client of an app that serves nano."""
    app = create_app(ServedModels({"nano": fresh(nano_executor)}), ServiceSettings())
    with testclient.TestClient(app) as client:
        yield client


@pytest.fixture
def clicks(nano):
    """``clicks(points, field=…)``: the mask of nano for these points."""

    def ask(points, **fields):
        request = {**IMAGE, "prompts": [{"points": points}], "format": "rle", **fields}
        answer = nano.post("/sam2/segment_image", json=request).json()
        return rle_to_mask(coco_to_rle(answer["predictions"][0]["masks"]))

    return ask


def test_logits_of_other_clicks_are_not_taken(clicks):
    alone = clicks([point(10, 10)])
    clicks([point(5, 5)], save_logits_to_cache=True)
    assert np.array_equal(clicks([point(10, 10)], load_logits_from_cache=True), alone)


def test_logits_of_the_first_clicks_are_taken_for_more(clicks):
    more = [point(5, 5), point(10, 10, positive=False)]
    alone = clicks(more)
    clicks([point(5, 5)], save_logits_to_cache=True)
    assert not np.array_equal(clicks(more, load_logits_from_cache=True), alone)


TRUCK = picture(2, (120, 180))  # theirs is ten times as large
TRUCK_BOX = {"box": {"x": 56.25, "y": 73.75, "width": 27.5, "height": 27.5}}
NEGATIVE, POSITIVE = point(57, 75, positive=False), point(57, 75)


def proposals(client, prompts):
    """Shape of all masks that are proposed for some prompts on one picture."""
    request = {"image": as_request(TRUCK), "prompts": prompts, "candidates": True, "format": "rle"}
    rows = client.post("/sam2/segment_image", json=request).json()["predictions"]
    sizes = {tuple(one["masks"]["size"]) for row in rows for one in row["candidates"]}
    [count] = {len(row["candidates"]) for row in rows}
    [hw] = sizes
    return (len(rows), count, *hw)


def both(*points):
    return {**TRUCK_BOX, "points": list(points)}


@pytest.mark.parametrize(
    "prompts",
    [
        [both(NEGATIVE, POSITIVE)],
        [both(NEGATIVE, POSITIVE)] * 2,
        [both(NEGATIVE, POSITIVE, NEGATIVE), *[both(NEGATIVE, POSITIVE, POSITIVE)] * 2],
    ],
)
def test_three_masks_are_proposed_for_a_box_and_points_of_each_object(nano, prompts):
    assert proposals(nano, prompts) == (len(prompts), 3, *TRUCK.hw)


@pytest.mark.parametrize("labels", [[1, 1], []])
def test_points_and_labels_that_do_not_match_are_refused(connect, labels):
    given = {**IMAGE, "prompts": [{"point_coords": [[57, 75]], "point_labels": labels}]}
    refused(connect().post("/sam2/segment_image", json=given), 422, "as many labels")


# --- video --------------------------------------------------------------------------------------

FRAME = {"image": as_request(PICTURE), "format": "rle"}
BOXED = {"box": {"x": 5.5, "y": 7, "width": 9, "height": 10}}


def test_a_video_is_not_prompted_by_text(connect):
    answer = connect().post("/track", json={**FRAME, "prompts": ["person"]})
    refused(answer, 422, "prompts.0: ")


def test_a_video_is_prompted_by_a_box(connect):
    [frame] = connect().post("/track", json={**FRAME, "prompts": [BOXED]}).json()["frames"]
    [row] = frame["predictions"]
    assert row["masks"]["size"] == list(PICTURE.hw)
    assert rle_to_mask(coco_to_rle(row["masks"]))[2:12, 1:10].all()


def test_a_frame_without_a_session_is_an_error(connect):
    refused(connect().post("/track/none/frames", json=FRAME), 404, "there is no session")


def test_later_frames_go_on_with_the_session(connect):
    client = connect()
    begun = client.post("/track", json={**FRAME, "prompts": [BOXED]}).json()
    later = client.post(f"/track/{begun['session_id']}/frames", json=FRAME).json()
    assert later["session_id"] == begun["session_id"]
    [first], [second] = (a["frames"][0]["predictions"] for a in (begun, later))
    assert second["tracker_id"] == first["tracker_id"]


def squares(count):
    """Frames of a white square that moves to the right."""
    for number in range(count):
        frame = np.zeros((256, 256, 3), np.uint8)
        frame[98:158, 50 + 8 * number : 110 + 8 * number] = 255
        yield as_request(Image(frame, f"frame {number}"))


def test_a_square_is_prompted_by_its_box_and_tracked(nano):
    first, *others = squares(3)
    given = {"image": first, "format": "rle", "prompts": [{"box": SQUARE}]}
    begun = nano.post("/track", json=given).json()
    address = f"/track/{begun['session_id']}/frames"
    answers = [nano.post(address, json={"image": o, "format": "rle"}).json() for o in others]
    for answer in (begun, *answers):
        [row] = answer["frames"][0]["predictions"]
        assert row["tracker_id"] == 1
        assert row["masks"]["size"] == [256, 256]


SQUARE = {"x": 80, "y": 128, "width": 60, "height": 60}


# --- other origins ------------------------------------------------------------------------------

ORIGIN = {"Origin": "http://example.com"}


def test_pages_of_a_named_origin_may_call_every_address(connect):
    client = connect(cors_origins="http://example.com")
    for address in ("/", "/info"):
        answer = client.get(address, headers=ORIGIN)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://example.com"


def test_a_page_may_ask_before_it_calls(connect):
    asking = {**ORIGIN, "Access-Control-Request-Method": "POST"}
    asking["Access-Control-Request-Headers"] = "Content-Type"
    client = connect(cors_origins="http://example.com")
    answer = client.options("/sam2/segment_image", headers=asking)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://example.com"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"].lower()

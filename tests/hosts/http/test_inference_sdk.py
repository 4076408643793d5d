"""The real client of Roboflow Inference against a running server: the library's own answers."""

from __future__ import annotations

import asyncio
import base64

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.images import read_image
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.requests import Sam2PromptSet
from sam2_blocks.service import ServedModels, ServiceSettings
from tests.hosts.serving import running
from tests.service.conftest import box, fresh, nano_executor, picture, point, to_base64

sdk = pytest.importorskip("inference_sdk", reason="needs inference-sdk")
pytest.importorskip("uvicorn", reason="needs the extra http")

from inference_sdk.http.errors import HTTPCallErrorError  # noqa: E402
from inference_sdk.http.utils.loaders import load_static_inference_input  # noqa: E402

from sam2_blocks.hosts.http import create_app  # noqa: E402

__all__ = ["nano_executor"]

PICTURE = picture(3, (120, 160))
PROMPTS = [box(20, 20, 120, 100), {"points": [point(80, 60), point(5, 5, positive=False)]}]
KEY = "key"
INPUTS = {
    "base64": lambda folder: to_base64(PICTURE),
    "numpy": lambda folder: PICTURE.pixels[:, :, ::-1].copy(),  # BGR, as the client wants it
    "pil": lambda folder: Pil.fromarray(PICTURE.pixels),
    "path": lambda folder: str(_save(folder / "a.png")),
}


def _save(path):
    Pil.fromarray(PICTURE.pixels).save(path)
    return path


@pytest.fixture(scope="module")
def url(nano_executor):
    """A server in a thread, that wants an API key."""
    models = ServedModels({"nano": fresh(nano_executor)})
    app = create_app(models, ServiceSettings(api_key=KEY))
    with running(app) as url:
        yield url


def connect(url, key=KEY, transport="legacy"):
    """A client that sends its key in query and body (legacy), or in the header."""
    client = sdk.InferenceHTTPClient(api_url=url, api_key=key)
    client.configure(sdk.InferenceConfiguration(api_key_transport=transport))
    return client


@pytest.fixture
def client(url):
    return connect(url)


def expected_masks(executor, sent):
    """What the library says of the very bytes that the client sends for this input."""
    [(encoded, _)] = load_static_inference_input(sent)
    image = read_image(base64.b64decode(encoded))
    prompts = Sam2PromptSet(prompts=PROMPTS).to_prompt_set(image.hw)
    [prediction] = executor.segment([(executor.embed([image])[0], prompts)])
    return np.array([rle_to_mask(rle) for rle in prediction.rles]), prediction.iou_prediction


def masks_in(answer):
    masks = []
    for row in answer["predictions"]:
        if row["format"] == "rle":
            rle = coco_to_rle(row["masks"])
            masks.append(rle_to_mask(rle))
        else:
            masks.append(filled(row["masks"]))
    return np.array(masks)


def filled(rings):
    canvas = np.zeros(PICTURE.hw, np.uint8)
    for ring in rings:
        cv2.fillPoly(canvas, [np.array(ring, np.int32).reshape(-1, 2)], 1)
    return canvas.astype(bool)


def without_holes(mask):
    """What is left of a mask in polygons that have none, as the public server's."""
    how = (cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return filled(cv2.findContours(mask.astype(np.uint8), *how)[0])


def assert_is_the_librarys(answer, executor, sent):
    masks, confidence = expected_masks(executor, sent)
    if answer["predictions"][0]["format"] == "polygon":
        masks = np.array([without_holes(mask) for mask in masks])
    assert (masks_in(answer) == masks).all()
    np.testing.assert_allclose(
        [row["confidence"] for row in answer["predictions"]], confidence, atol=1e-5
    )


@pytest.mark.parametrize("mask_format", ["json", "rle"])
@pytest.mark.parametrize("kind", INPUTS)
def test_sync_answers_are_the_librarys(client, nano_executor, tmp_path, kind, mask_format):
    sent = INPUTS[kind](tmp_path)
    answer = client.sam2_segment_image(
        sent, prompts=PROMPTS, sam2_version_id="nano", mask_input_format=mask_format
    )
    assert_is_the_librarys(answer, nano_executor, sent)


@pytest.mark.parametrize("mask_format", ["json", "rle"])
@pytest.mark.parametrize("kind", INPUTS)
def test_async_answers_are_the_librarys(client, nano_executor, tmp_path, kind, mask_format):
    sent = INPUTS[kind](tmp_path)
    answer = asyncio.run(
        client.sam2_segment_image_async(
            sent, prompts=PROMPTS, sam2_version_id="nano", mask_input_format=mask_format
        )
    )
    assert_is_the_librarys(answer, nano_executor, sent)


def test_a_batch_is_answered_in_order(client, nano_executor, tmp_path):
    sent = [make(tmp_path) for make in INPUTS.values()]
    answers = client.sam2_segment_image(sent, prompts=PROMPTS, sam2_version_id="nano")
    assert len(answers) == len(sent)
    for answer, one in zip(answers, sent, strict=True):
        assert_is_the_librarys(answer, nano_executor, one)


def test_without_prompts_the_single_mask_is_flagged(client):
    answer = client.sam2_segment_image(to_base64(PICTURE), sam2_version_id="nano")
    assert answer["unprompted"] is True
    assert len(answer["predictions"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ({"sam2_version_id": "hiera_tiny"}, 404, "there is no model 'hiera_tiny' here"),
        ({"prompts": [{"box": {"x": 1}}]}, 422, "prompts.prompts.0.box.y: Field required"),
        ({"prompts": [box(500, 500, 600, 600)]}, 422, "lies wholly outside the 160x120 image"),
    ],
)
def test_the_client_reads_our_messages(client, arguments, status, message):
    arguments = {"sam2_version_id": "nano", **arguments}
    with pytest.raises(HTTPCallErrorError) as caught:
        client.sam2_segment_image(to_base64(PICTURE), **arguments)
    assert caught.value.status_code == status
    assert message in caught.value.api_message


def test_the_api_key_of_the_client_is_checked(url):
    with pytest.raises(HTTPCallErrorError) as caught:
        connect(url, "other").sam2_segment_image(to_base64(PICTURE), sam2_version_id="nano")
    assert caught.value.status_code == 401


def test_the_api_key_may_travel_in_the_header(url):
    client = connect(url, transport="header")
    answer = client.sam2_segment_image(to_base64(PICTURE), prompts=PROMPTS, sam2_version_id="nano")
    assert len(answer["predictions"]) == 2


def test_the_client_reads_what_the_server_is_and_has(client):
    told = client.get_server_info()
    assert (told.name, bool(told.version), bool(told.uuid)) == ("sam2_blocks", True, True)
    [model] = client.list_loaded_models().models
    assert (model.model_id, model.task_type) == ("sam2/nano", "instance-segmentation")


@pytest.mark.parametrize("mask_format", ["json", "rle"])
def test_requests_for_sam3_are_answered_by_sam2(client, nano_executor, mask_format):
    sent = to_base64(PICTURE)
    assert client.sam3_embed_image(sent, image_id="mine")["image_id"] == "mine"
    answer = client.sam3_visual_segment(sent, prompts=PROMPTS, mask_input_format=mask_format)
    assert_is_the_librarys(answer, nano_executor, sent)


def test_requests_for_sam3_are_answered_async_too(client, nano_executor):
    sent = to_base64(PICTURE)
    answer = asyncio.run(client.sam3_visual_segment_async(sent, prompts=PROMPTS))
    assert_is_the_librarys(answer, nano_executor, sent)
    assert asyncio.run(client.sam3_embed_image_async(sent))["image_id"]

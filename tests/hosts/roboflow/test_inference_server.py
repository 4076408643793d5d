"""The real server of Roboflow Inference with our plugin, and its real client, without a network.

Runs where ``inference`` is installed, which wants versions of its own; torch first, so that it is
the one for a CPU, then ``pip install . inference==1.8.3 'uvicorn[standard]' pycocotools``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests

from sam2_blocks import Image, PromptSet, load_plugins
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.conftest import ROOT
from tests.hosts.roboflow.conftest import (
    BOXES,
    DRAW,
    HW,
    IGNORED,
    IMAGE,
    PLUGIN,
    SEGMENT,
    detector_output,
    picture,
)

pytest.importorskip("inference.core.version", reason="needs inference, the server")
pytestmark = pytest.mark.filterwarnings(IGNORED)

THEIRS = {
    "type": "roboflow_core/segment_anything@v1",
    "name": "segment",
    "images": "$inputs.image",
    "boxes": "$inputs.boxes",
    "version": "nano",
}
WITHOUT_NETWORK = {
    "OFFLINE_MODE": "True",
    "TELEMETRY_OPT_OUT": "True",
    "METRICS_ENABLED": "False",
    "ACTIVE_LEARNING_ENABLED": "False",
    "SAM2_BLOCKS_OFFLINE": "1",
    "WORKFLOWS_PLUGINS": PLUGIN,
}
START_S = 900


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    folder = tmp_path_factory.mktemp("server-files")
    command = [sys.executable, "-m", "tests.hosts.roboflow.inference_server", str(port)]
    environment = {**os.environ, **WITHOUT_NETWORK, "MODEL_CACHE_DIR": str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    with (
        open(log, "w") as written,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=written, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(address, process, log):
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            requests.get(f"{address}/info", timeout=5)
            return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {log.read_text()[-4000:]}")


@pytest.fixture
def client(url):
    from inference_sdk import InferenceHTTPClient

    return InferenceHTTPClient(api_url=url, api_key="any")


def workflow(steps, outputs, inputs=(IMAGE, BOXES)):
    rows = [{"type": "JsonField", "name": n, "selector": s} for n, s in outputs.items()]
    return {"version": "1.0", "inputs": list(inputs), "steps": steps, "outputs": rows}


@pytest.fixture
def run(client):
    """``run(steps, outputs)``: what the client gets for one picture and three boxes."""

    def ask(steps, outputs, *, pixels=None, **parameters):
        [result] = client.run_workflow(
            specification=workflow(steps, outputs),
            images={"image": picture() if pixels is None else pixels},
            parameters={"boxes": detector_output(3), **parameters},
        )
        return result

    return ask


def expected_masks(pixels, boxes):
    """What the library says of the bytes that the client sends: JPEG is its default."""
    import base64

    import cv2
    from inference_sdk.http.utils.loaders import load_static_inference_input

    [(sent, _)] = load_static_inference_input(pixels)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(sent), np.uint8), cv2.IMREAD_COLOR)
    executor = load_plugins(points=[]).resources().executor("nano", device="cpu")
    [embedding] = executor.embed([Image(np.ascontiguousarray(decoded[..., ::-1]))])
    [prediction] = executor.segment([(embedding, PromptSet.from_boxes(boxes))])
    return np.array([rle_to_mask(rle) for rle in prediction.rles])


def boxes_of(rows):
    half = [(row["width"] / 2, row["height"] / 2) for row in rows]
    corners = [
        (row["x"] - w, row["y"] - h, row["x"] + w, row["y"] + h)
        for row, (w, h) in zip(rows, half, strict=True)
    ]
    return np.array(corners, np.float32)


def masks_in(predictions):
    rows = predictions["predictions"]
    return np.array([rle_to_mask(coco_to_rle(row["rle_mask"])) for row in rows])


@pytest.mark.parametrize("block", ["sam2_blocks/segment@v1", "sam2/segment@v1"])
def test_their_step_with_our_type_gives_the_masks_of_the_library(run, block):
    found = run([{**THEIRS, "type": block}], {"found": "$steps.segment.predictions"})["found"]
    assert [row["class"] for row in found["predictions"]] == ["class-0", "class-1", "class-2"]
    assert {row["parent_id"] for row in found["predictions"]} == {"image"}
    wanted = expected_masks(picture(), boxes_of(detector_output(3)["predictions"]))
    assert np.array_equal(masks_in(found), wanted)


def test_without_boxes_the_picture_is_segmented(client):
    step = {name: value for name, value in THEIRS.items() if name != "boxes"}
    step["type"] = "sam2_blocks/segment@v1"
    specification = workflow([step], {"found": "$steps.segment.predictions"}, [IMAGE])
    [result] = client.run_workflow(specification=specification, images={"image": picture()})
    assert [row["class"] for row in result["found"]["predictions"]] == ["foreground"]


CHAIN = [
    SEGMENT,
    *DRAW,
    {
        "type": "roboflow_core/dynamic_crop@v1",
        "name": "crop",
        "images": "$inputs.image",
        "predictions": "$steps.segment.predictions",
        "mask_opacity": 1.0,
        "background_color": "#000000",
    },
    {
        "type": "roboflow_core/byte_tracker@v3",
        "name": "track",
        "image": "$inputs.image",
        "detections": "$steps.segment.predictions",
    },
    {
        "type": "roboflow_core/property_definition@v1",
        "name": "count",
        "data": "$steps.segment.predictions",
        "operations": [{"type": "SequenceLength"}],
    },
    {
        "type": "sam2_blocks/masks_polygons@v1",
        "name": "polygons",
        "predictions": "$steps.segment.predictions",
    },
]


def test_their_blocks_follow_ours(run):
    outputs = {
        "count": "$steps.count.output",
        "crops": "$steps.crop.crops",
        "drawn": "$steps.mask.image",
        "polygons": "$steps.polygons.polygons",
        "tracked": "$steps.track.tracked_detections",
    }
    made = run(CHAIN, outputs)
    assert made["count"] == 3
    assert len(made["crops"]) == len(made["polygons"]) == 3
    assert made["drawn"]
    assert "predictions" in made["tracked"]


def test_frames_of_a_video_are_tracked(run):
    step = {"type": "sam2_blocks/track@v1", "name": "track", "images": "$inputs.image"}
    step |= {"boxes": "$inputs.boxes", "model_id": "nano"}
    outputs = {"found": "$steps.track.predictions"}
    with pytest.raises(Exception, match="is no frame of a video"):
        run([step], outputs)


def test_a_wrong_version_is_refused_with_our_message(url):
    step = {**THEIRS, "type": "sam2_blocks/segment@v1", "version": "wrong_version"}
    specification = workflow([step], {"found": "$steps.segment.predictions"})
    address = f"{url}/workflows/validate?api_key=any"
    answer = requests.post(address, json=specification, timeout=600)
    assert answer.status_code == 400
    assert "there is no model 'wrong_version'" in answer.text


def test_the_server_describes_our_blocks(url):
    answer = requests.post(f"{url}/workflows/blocks/describe", json={"api_key": "any"}, timeout=600)
    blocks = {one["manifest_type_identifier"]: one for one in answer.json()["blocks"]}
    segment = blocks["sam2_blocks/segment@v1"]
    assert segment["block_source"] == PLUGIN
    assert {"image", "boxes", "prompts", "model"} <= segment["block_schema"]["properties"].keys()
    kinds = {kind["name"] for kind in answer.json()["declared_kinds"]}
    assert {"image_embedding", "prompts"} <= kinds


def test_embeddings_travel_through_the_server(client):
    embed = {"type": "sam2_blocks/embed@v1", "name": "embed", "image": "$inputs.image"}
    embed["model"] = "nano"
    sending = workflow([embed], {"embedding": "$steps.embed.embedding"}, [IMAGE])
    [sent] = client.run_workflow(specification=sending, images={"image": picture()})
    given = {"type": "WorkflowBatchInput", "name": "embedding", "kind": ["image_embedding"]}
    step = {**SEGMENT, "image": None, "embedding": "$inputs.embedding"}
    taking = workflow([step], {"found": "$steps.segment.predictions"}, [given, BOXES])
    parameters = {"embedding": [sent["embedding"]], "boxes": [detector_output(2)]}
    [result] = client.run_workflow(specification=taking, parameters=parameters)
    masks = masks_in(result["found"])
    assert masks.shape == (2, *HW)
    wanted = expected_masks(picture(), boxes_of(detector_output(2)["predictions"]))
    assert np.array_equal(masks, wanted)

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import supervision as sv
from sam2_blocks_opencv.detect import CASCADES, CLASS_NAMES, _to_detections

from sam2_blocks import Image

FACE_XYXY = np.array([[172, 62, 276, 188]])  # drawn by hand: hairline to chin, cheek to cheek


def draw_pedestrian():
    """A dark figure on a light ground, 200 of 320 by 300 of 480 pixels."""
    pixels = np.full((480, 320, 3), 200, np.uint8)
    dark = (60, 60, 60)
    cv2.circle(pixels, (160, 115), 22, dark, -1)
    cv2.rectangle(pixels, (152, 130), (168, 150), dark, -1)
    cv2.ellipse(pixels, (160, 205), (38, 62), 0, 0, 360, dark, -1)
    for side in (-1, 1):
        cv2.line(pixels, (160 + side * 18, 240), (160 + side * 24, 380), dark, 26)
    return Image(cv2.GaussianBlur(pixels, (5, 5), 0), "pedestrian")


def detect(run_block, image, **params):
    result = run_block("opencv/detect@v1", {"image": image}, **params)
    assert result.errors == ()
    return result.outputs["detections"]


def test_finds_the_face_of_the_astronaut_and_nothing_else(run_block, astronaut):
    found = detect(run_block, astronaut)
    assert len(found) == 1
    assert sv.box_iou_batch(found.xyxy, FACE_XYXY)[0, 0] > 0.5
    assert list(found.data["class_name"]) == ["face"]
    assert list(found.class_id) == [0]
    assert 0.99 < found.confidence[0] <= 1


def test_finds_both_eyes_inside_the_face(run_block, astronaut):
    eyes = detect(run_block, astronaut, detector="eye")
    assert list(eyes.data["class_name"]) == ["eye", "eye"]
    assert (eyes.xyxy[:, :2] >= FACE_XYXY[0, :2]).all()
    assert (eyes.xyxy[:, 2:] <= FACE_XYXY[0, 2:]).all()


def test_the_surest_detection_comes_first(run_block, astronaut):
    confidence = detect(run_block, astronaut, min_neighbors=1).confidence
    assert len(confidence) > 1
    assert (np.diff(confidence) <= 0).all()


def test_finds_a_pedestrian(run_block):
    found = detect(run_block, draw_pedestrian(), detector="person", min_neighbors=2)
    assert list(found.data["class_name"]) == ["person"]
    assert sv.box_iou_batch(found.xyxy, np.array([[110, 90, 210, 395]]))[0, 0] > 0.35


def test_boxes_end_where_the_picture_ends():
    """HOG also looks 8 pixels outside the picture."""
    item = SimpleNamespace(image=Image(np.zeros((128, 64, 3), np.uint8)), min_size=1)
    found = _to_detections(([[-8, -4, 70, 140]], [2.0]), "person", item)
    assert found.xyxy.tolist() == [[0, 0, 62, 128]]


@pytest.mark.parametrize("detector", ["frontal_face", "person"])
@pytest.mark.parametrize("hw", [(1, 1), (24, 32), (127, 300), (300, 63), (400, 400)])
def test_an_empty_picture_gives_typed_empty_detections(run_block, detector, hw):
    found = detect(run_block, Image(np.full((*hw, 3), 90, np.uint8)), detector=detector)
    assert found.xyxy.shape == (0, 4)
    assert found.confidence.dtype.kind == "f"
    assert found.class_id.dtype.kind == "i"
    assert found.data["class_name"].dtype.kind == "U"


@pytest.mark.parametrize("detector", ["frontal_face", "person"])
def test_nothing_smaller_than_min_size_is_found(run_block, astronaut, detector):
    image = astronaut if detector == "frontal_face" else draw_pedestrian()
    assert len(detect(run_block, image, detector=detector, min_size=300)) == 0


def test_the_manifest_offers_what_the_code_has(plugins):
    offered = plugins.manifests["opencv/detect@v1"].params["detector"].enum
    assert offered == [*CASCADES, "person"]
    assert {name for name, _ in CASCADES.values()} | {"person"} == set(CLASS_NAMES)


@pytest.mark.parametrize("file", [file for _, file in CASCADES.values()])
def test_every_cascade_ships_with_opencv(file):
    assert not cv2.CascadeClassifier(cv2.data.haarcascades + file).empty()

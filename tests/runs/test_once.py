from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil

import sam2_blocks
from sam2_blocks import ImageError, SegmentOptions, load_executor, to_rles
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.runs.once import to_image
from sam2_blocks.values import Image, PromptSet
from tests.conftest import PICTURES

COFFEE = PICTURES / "coffee.jpg"
BOX = [327, 240, 400, 324]


@pytest.fixture(scope="module")
def expected():
    found = sam2_blocks.segment(COFFEE, [BOX])
    assert 500 < np.count_nonzero(found.mask[0]) < 73 * 84
    return found


def same(found, expected):
    return list(map(rle_to_coco, to_rles(found))) == list(map(rle_to_coco, to_rles(expected)))


@pytest.mark.parametrize("form", ["array", "pillow", "bytes", "str", "image", "embedding"])
def test_pictures_in_any_form(form, expected):
    picture = Pil.open(COFFEE)
    pixels = np.asarray(picture.convert("RGB"))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    given = {
        "array": lambda: pixels,
        "pillow": lambda: picture,
        "bytes": file.getvalue,
        "str": lambda: str(COFFEE),
        "image": lambda: Image(pixels, "coffee"),
        "embedding": lambda: load_executor("nano").embed([Image(pixels, "coffee")])[0],
    }[form]()
    assert same(sam2_blocks.segment(given, np.array([BOX])), expected)


def test_prompts_in_any_form(expected):
    detections = sv.Detections(np.array([BOX], float), class_id=np.array([7]))
    found = sam2_blocks.segment(COFFEE, detections)
    assert same(found, expected)
    assert found.class_id.tolist() == [7]
    for prompts in (PromptSet.from_boxes([BOX]), [{"box_xyxy": BOX}]):
        assert same(sam2_blocks.segment(COFFEE, prompts), expected)
    assert len(sam2_blocks.segment(COFFEE, [])) == 0


def test_options_reach_the_model(expected):
    strict = sam2_blocks.segment(COFFEE, [BOX], options=SegmentOptions(mask_threshold=4.0))
    assert strict.area[0] < expected.area[0]
    assert len(sam2_blocks.segment(COFFEE, [BOX], min_confidence=1.0)) == 0


def test_bad_boxes_of_detections_are_skipped_and_written_ones_refused():
    boxes = [[9000, 1, 9500, 9], BOX]
    with pytest.raises(ValueError, match=r"prompt 0: box .* lies wholly outside"):
        sam2_blocks.segment(COFFEE, boxes)
    with pytest.warns(UserWarning, match="1 of 2 prompts"):
        found = sam2_blocks.segment(COFFEE, sv.Detections(np.array(boxes, float)))
    assert found.area[0] == 0 < found.area[1]


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError, match=r"wants a path, the bytes of a picture .* got int"):
        to_image(3)
    with pytest.raises(ImageError, match="wants a uint8 array"):
        to_image(np.zeros((4, 4, 3)))
    with pytest.raises(TypeError, match="wants prompts: a PromptSet"):
        sam2_blocks.segment(COFFEE, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_confidence": float("nan")}, "min_confidence wants a finite number, got nan"),
        ({"min_confidence": "0.5"}, "min_confidence wants a finite number, got '0.5'"),
        ({"min_confidence": True}, "min_confidence wants a finite number, got True"),
        ({"tile_px": float("inf")}, "tile_px wants 0 or more, got inf"),
        ({"tile_px": "64"}, "tile_px wants 0 or more, got '64'"),
        ({"tile_px": 64.5}, "tile_px wants 0 or more, got 64.5"),
        ({"on_bad_prompt": "ignore"}, "on_bad_prompt wants one of .*, got 'ignore'"),
        ({"model": None}, "model wants a name or a path, got NoneType"),
        ({"model": b"nano"}, "model wants a name or a path, got bytes"),
        ({"options": {"max_hole_area": 3}}, "options wants SegmentOptions, got dict"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sam2_blocks.segment(COFFEE, [BOX], **given)


def test_a_model_may_be_named_by_a_path():
    assert len(sam2_blocks.segment(COFFEE, [BOX], Path("nano"), tile_px=np.int64(256))) == 1

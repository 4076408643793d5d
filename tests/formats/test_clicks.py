from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from sam2_blocks.formats.clicks import ClickedPicture, clicks_to_detections
from sam2_blocks.formats.prompt_files import load_prompts
from sam2_blocks.masks.rle import mask_to_rle, rle_to_coco

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True
RLE = dict(rle_to_coco(mask_to_rle(MASK)))
OBJECT = {"class_name": "cup", "mask": RLE, "confidence": 0.5}
CLICK = {"point_coords": [[3, 2]], "point_labels": [1]}
DOCUMENT = {
    "file_name": "a/b.jpg",
    "width": 6,
    "height": 4,
    "prompts": [CLICK, {"box_xyxy": [2, 1, 5, 3]}],
    "objects": [OBJECT, {**OBJECT, "class_name": "plate", "found": True, "confidence": None}],
}


def test_objects_become_detections_with_the_ids_of_listed_classes():
    found = clicks_to_detections(ClickedPicture(**DOCUMENT), ["spoon", "plate"])
    assert found.data["class_name"].tolist() == ["cup", "plate"]
    assert found.class_id.tolist() == [2, 1]
    assert found.confidence.tolist() == [0.5, 1.0]
    assert found.xyxy.tolist() == [[2, 1, 4, 2]] * 2
    assert (found.mask[0] == MASK).all()


def test_nothing_clicked_is_no_detections():
    empty = {**DOCUMENT, "prompts": [], "objects": []}
    assert len(clicks_to_detections(ClickedPicture(**empty))) == 0


def test_the_file_is_one_of_prompts(tmp_path):
    path = tmp_path / "b.jpg.json"
    path.write_text(ClickedPicture(**DOCUMENT).model_dump_json())
    prompts = load_prompts(path, (4, 6)).prompts
    assert prompts[0].point_coords.tolist() == [[3, 2]]
    assert prompts[1].box_xyxy.tolist() == [2, 1, 5, 3]


def test_run_lengths_as_a_list_are_kept_as_text():
    counts = mask_to_rle(MASK).counts.tolist()
    objects = [{"mask": {"size": [4, 6], "counts": counts}}]
    picture = ClickedPicture(**{**DOCUMENT, "prompts": [CLICK], "objects": objects})
    assert json.loads(picture.model_dump_json())["objects"][0]["mask"] == RLE


def test_the_picture_has_its_size_and_takes_no_memory(tmp_path):
    large = ClickedPicture(file_name="a.jpg", width=99_999, height=99_998, prompts=[], objects=[])
    image = large.image(tmp_path / "a.jpg")
    assert (image.hw, image.id, image.path) == ((99_998, 99_999), "a.jpg", tmp_path / "a.jpg")
    assert image.pixels.base is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "wants one prompt an object, got 0 prompts and 2 objects"),
        ({"width": 7}, "the mask of object 0 is 6x4 pixels, the picture 7x4"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"prompts": [{"box": [1]}] * 2}, "prompt 0: wants box_xyxy"),
        ({"objects": [{"mask": {"size": [4, 6], "counts": [1]}}] * 2}, "sum"),
        ({"objects": [{**OBJECT, "class_name": ""}] * 2}, "at least 1 character"),
        ({"clicks_version": 2}, "Input should be 1"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ValidationError, match=message):
        ClickedPicture(**{**DOCUMENT, **change})

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.prompt_files import load_prompts

HW = (40, 60)
ROWS = [
    {"point_coords": [[5, 6], [9, 9]], "point_labels": [1, 0]},
    {"box_xyxy": [1, 2, 30, 20], "point_coords": [[5, 6]], "point_labels": [1]},
]


@pytest.mark.parametrize("data", [ROWS, {"prompts": ROWS}])
def test_clicks_and_boxes_are_rows(tmp_path, data):
    (tmp_path / "a.json").write_text(json.dumps(data))
    first, second = load_prompts(tmp_path / "a.json", HW).prompts
    assert first.point_labels.tolist() == [1, 0]
    assert first.box_xyxy is None
    assert second.box_xyxy.tolist() == [1, 2, 30, 20]


def test_each_value_of_a_picture_is_an_object(tmp_path):
    values = np.zeros(HW, np.uint8)
    values[10:20, 30:45] = 2
    values[:, :15] = 7
    Pil.fromarray(values).save(tmp_path / "a.png")
    first, second = load_prompts(tmp_path / "a.png", HW, mask_px=64).prompts
    assert first.box_xyxy.tolist() == [30, 10, 45, 20]
    assert second.box_xyxy.tolist() == [0, 0, 15, 40]
    assert first.mask_input.shape == (1, 64, 64)
    assert (second.mask_input[0, :, :15] == 10).all()
    assert (second.mask_input[0, :, 17:] == -10).all()


def test_points_boxes_and_outlines_of_labelme_are_prompts(tmp_path):
    shapes = [
        {"label": "cup", "points": [[5, 6]], "group_id": None, "shape_type": "point"},
        {"label": "cup", "points": [[1, 2], [30, 20]], "group_id": 4, "shape_type": "rectangle"},
        {"label": "bg", "points": [[9, 9]], "group_id": 4, "shape_type": "point"},
        {"label": "lid", "points": [[10, 10], [20, 10], [20, 30], [10, 30]], "group_id": None},
    ]
    data = {"shapes": shapes, "imageHeight": HW[0], "imageWidth": HW[1]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    click, both, outline = load_prompts(tmp_path / "a.json", HW).prompts
    assert click.point_coords.tolist() == [[5, 6]]
    assert click.box_xyxy is None
    assert both.box_xyxy.tolist() == [1, 2, 30, 20]
    assert both.point_labels.tolist() == [0]
    assert outline.box_xyxy.tolist() == [10, 10, 20, 30]
    assert outline.mask_input.shape == (1, 256, 256)


def test_labelme_s_size_is_the_picture_s(tmp_path):
    data = {"shapes": [], "imageHeight": 60, "imageWidth": 40}
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"a\.json: says the picture is 40x60 .* EXIF"):
        load_prompts(tmp_path / "a.json", HW)


def test_no_mask_is_no_prompt(tmp_path):
    Pil.new("1", HW[::-1]).save(tmp_path / "a.png")
    assert len(load_prompts(tmp_path / "a.png", HW)) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json: not JSON"),
        ("a.json", b'[{"box": 1}]', r"a\.json: "),
        ("a.png", b"x", r"a\.png: not a picture"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_prompts(tmp_path / name, HW)


def test_masks_of_another_size_are_refused(tmp_path):
    Pil.new("L", (9, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="the masks are 9x8 pixels, their picture is 60x40"):
        load_prompts(tmp_path / "a.png", HW)


def test_labels_of_labelme_are_classes(tmp_path):
    shapes = [
        {"label": "cup", "points": [[5, 6]], "group_id": None, "shape_type": "point"},
        {"label": "bg", "points": [[9, 9]], "group_id": 4, "shape_type": "point"},
        {"label": "lid", "points": [[3, 3]], "group_id": 4, "shape_type": "point"},
        {"label": "", "points": [[3, 3]], "group_id": None, "shape_type": "point"},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes}))
    prompts = load_prompts(tmp_path / "a.json", HW).prompts
    assert [prompt.class_name for prompt in prompts] == ["cup", "lid", None]


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ([{"class_name": "cup"}, {"class_name": None}], ["cup", None]),
        ([{"class_name": "cup"}], [None, None]),
        (["cup", "lid"], [None, None]),
    ],
)
def test_classes_that_the_page_saves_are_those_of_its_clicks(tmp_path, objects, wanted):
    (tmp_path / "a.json").write_text(json.dumps({"prompts": ROWS, "objects": objects}))
    prompts = load_prompts(tmp_path / "a.json", HW).prompts
    assert [prompt.class_name for prompt in prompts] == wanted

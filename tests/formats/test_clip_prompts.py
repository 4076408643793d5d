"""Prompts on frames of a clip, as people write them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_blocks.clips import ClipPrompt
from sam2_blocks.formats.clip_prompts import (
    check_clip_prompts,
    clip_prompts_to_plain,
    load_clip_prompts,
    parse_clip_prompts,
)
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Prompt

AT = {"frame_index": 3, "tracker_id": 7}
BOX = {"box_xyxy": [1.0, 2.0, 5.0, 6.0]}
ROWS = [
    AT | {"class_name": "object"} | BOX,
    AT | {"tracker_id": 8, "class_name": "cup", "point_coords": [[3.0, 4.0]], "point_labels": [1]},
    AT | {"tracker_id": 9, "class_name": "object", "mask": {"size": [2, 3], "counts": "123"}},
]


def test_rows_travel():
    found = parse_clip_prompts(ROWS)
    assert [(one.frame, one.tracker_id, one.class_name) for one in found] == [
        (3, 7, "object"),
        (3, 8, "cup"),
        (3, 9, "object"),
    ]
    assert rle_to_mask(found[2].prompt).astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert clip_prompts_to_plain(found) == json.loads(json.dumps(ROWS))


def test_a_box_and_points_are_one_prompt():
    [found] = parse_clip_prompts([AT | BOX | {"point_coords": [[3, 4]]}])
    assert found.prompt.box_xyxy.tolist() == BOX["box_xyxy"]
    assert found.prompt.point_labels.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (AT | {"box_xyx": [1, 2, 3, 4]}, "prompt 0: knows no 'box_xyx'. Did you mean 'box_xyxy'"),
        ({"tracker_id": 1} | BOX, "wants frame_index as a whole number from 0, got nothing"),
        (AT | {"tracker_id": "one"} | BOX, "wants tracker_id as a whole number from 0, got 'one'"),
        (AT | {"frame_index": -1} | BOX, "wants frame_index as a whole number from 0, got -1"),
        (AT, "prompt 0: wants a mask, or a box and points; got neither"),
        (AT | BOX | {"mask": {}}, "wants a mask, or a box and points; got both"),
        (AT | {"box_xyxy": [1, 2, 3]}, r"prompt 0: a box wants 4 numbers, got shape \(3,\)"),
        (AT | {"mask": "a.png"}, "wants mask as COCO run lengths, size and counts, got 'a.png'"),
        (AT | {"mask": {"size": [2, 2]}}, r"prompt 0: a COCO RLE needs .* missing: \['counts'\]"),
        (AT | BOX | {"class_name": 3}, "wants class_name as text, got 3"),
    ],
)
def test_rows_that_mean_nothing(row, message):
    with pytest.raises(ValueError, match=message):
        parse_clip_prompts([row])


@pytest.mark.parametrize("value", [{"frame_index": 1}, "a.json", [3]])
def test_what_is_no_list_of_rows(value):
    with pytest.raises(TypeError, match="wants a list of mappings with frame_index"):
        parse_clip_prompts(value)
    with pytest.raises(TypeError, match="wants a list of ClipPrompt"):
        check_clip_prompts(value)


def test_logits_are_no_rows():
    prompt = ClipPrompt(0, 1, Prompt(mask_input=np.zeros((1, 8, 8), np.float32)))
    with pytest.raises(ValueError, match="prompt 0: mask_input cannot be written as JSON"):
        clip_prompts_to_plain([prompt])


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"prompts": rows}])
def test_a_file_of_rows(tmp_path, wrap):
    path = tmp_path / "a.prompts.json"
    path.write_text(json.dumps(wrap(ROWS)))
    assert len(load_clip_prompts(path)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}]", r"a\.json: prompt 0: wants frame_index"),
        ("3", r"a\.json: wants a list"),
        ("[", "not JSON"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_clip_prompts(path)

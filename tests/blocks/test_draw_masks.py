from __future__ import annotations

import numpy as np

from sam2_blocks.formats.rows import Box, boxes_to_detections
from sam2_blocks.prompts import parse_prompts
from sam2_blocks.testing import (
    sample_detections,
    sample_image,
)
from sam2_blocks.values import Image


def test_drawing_changes_only_a_copy(run_one_step):
    image = sample_image()
    before = image.pixels.copy()
    params = {"labels": False, "boxes": True}
    result = run_one_step(
        "draw/masks@v1", {"image": image, "predictions": sample_detections()}, params
    )
    drawn = result.outputs["image"].pixels
    assert np.array_equal(image.pixels, before)
    assert (drawn[8, 6] != before[8, 6]).any()
    assert np.array_equal(drawn[22, 2], before[22, 2])


def test_drawing_nothing_returns_the_picture(run_one_step):
    image = sample_image()
    nothing = boxes_to_detections([])
    result = run_one_step("draw/masks@v1", {"image": image, "predictions": nothing})
    assert np.array_equal(result.outputs["image"].pixels, image.pixels)


def test_masks_are_drawn_in_the_palette_s_colours(run_one_step):
    params = {"labels": False, "opacity": 1.0}
    found = sample_detections(1)
    result = run_one_step("draw/masks@v1", {"image": sample_image(), "predictions": found}, params)
    assert result.outputs["image"].pixels[9, 7].tolist() == [163, 81, 251]


def test_tracks_keep_their_colour_and_frames_their_place(run_one_step):
    found = sample_detections()
    found.tracker_id = np.array([4, 5])
    params = {"labels": False, "boxes": False}
    colours = []
    for rows in ([0, 1], [1]):
        inputs = {"image": sample_image(), "predictions": found.select(np.array(rows))}
        drawn = run_one_step("draw/masks@v1", inputs, params).outputs["image"]
        assert drawn.video == sample_image().video
        colours.append(drawn.pixels[6, 20].tolist())  # inside the second mask
    assert colours[0] == colours[1]


def draw(run_one_step, found, size=(300, 400), prompts=None, **params):
    image = Image(np.zeros((*size, 3), np.uint8))
    inputs = {"image": image, "predictions": found}
    inputs |= {} if prompts is None else {"prompts": prompts}
    params = {"masks": False, **params}
    return run_one_step("draw/masks@v1", inputs, params).outputs["image"].pixels


def boxes(count):
    rows = [
        [10 * n % 300, 20 + 7 * n % 200, 90 + 10 * n % 300, 80 + 7 * n % 200] for n in range(count)
    ]
    return boxes_to_detections([Box(tuple(row), "object") for row in rows])


def test_many_labels_do_not_cover_the_picture(run_one_step):
    pixels = draw(run_one_step, boxes(200))
    assert 0.02 < pixels.any(axis=2).mean() <= 0.21


def test_labels_may_be_switched_off_or_larger(run_one_step):
    assert not draw(run_one_step, boxes(3), labels=False).any()
    small, large = (draw(run_one_step, boxes(1), label_size=size).any(axis=2) for size in (8, 40))
    assert large.sum() > 4 * small.sum() > 0


def test_masks_found_without_prompts_have_no_labels_by_themselves(run_one_step):
    found = boxes(3)
    found.data["stability_score"] = np.array([0.9, 0.8, 0.7], np.float32)
    assert not draw(run_one_step, found).any()
    assert draw(run_one_step, found, labels=True).any()
    found.data["stability_score"][:] = np.nan
    assert draw(run_one_step, found).any()


def test_labels_that_no_font_of_ours_has_are_different(run_one_step):
    drawn = []
    for name in ("\u6c7d\u8f66", "\u98de\u673a", "T\u00fcr", "Tur"):
        found = boxes_to_detections([Box((10, 100, 200, 200), name)])
        drawn.append(draw(run_one_step, found))
    assert not any(np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_clicks_are_drawn(run_one_step):
    clicks = {"point_coords": [[50, 60], [200, 100]], "point_labels": [1, 0]}
    prompts = parse_prompts([clicks, {"box_xyxy": [250, 150, 350, 250]}])
    pixels = draw(run_one_step, boxes_to_detections([]), prompts=prompts)
    assert pixels[60, 50].argmax() == 1
    assert pixels[100, 200].argmax() == 0
    assert pixels[150, 300].any()
    assert not pixels[200, 300].any()

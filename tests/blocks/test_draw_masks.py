from __future__ import annotations

import numpy as np

from sam2_blocks.formats.rows import boxes_to_detections
from sam2_blocks.testing import (
    sample_detections,
    sample_image,
)


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

from __future__ import annotations

import pytest

from tests.blocks.crops import IMAGE, made


@pytest.mark.parametrize(
    ("params", "hw"),
    [
        ({"longest_px": 40}, (30, 40)),
        ({"scale": 0.5}, (30, 40)),
        ({"width_px": 40}, (30, 40)),
        ({"height_px": 30}, (30, 40)),
        ({"width_px": 7, "height_px": 5}, (5, 7)),
        ({"longest_px": 1}, (1, 1)),
    ],
)
def test_a_new_size_may_be_said_in_several_ways(run_one_step, params, hw):
    assert made(run_one_step("image/resize@v1", {"image": IMAGE}, params))["image"].hw == hw


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "give one of longest_px, scale, or width_px and height_px; got none."),
        ({"scale": 2, "longest_px": 9}, "got longest_px and scale."),
        ({"scale": 9, "max_pixels": 1000}, "would have 720x540 pixels, more than max_pixels 1000"),
    ],
)
def test_a_size_that_cannot_be_is_refused(run_one_step, params, message):
    result = run_one_step("image/resize@v1", {"image": IMAGE}, params)
    assert message in result.errors[0].message

from __future__ import annotations

import pytest

from sam2_blocks.options import AutomaticSettings, SegmentOptions, settings_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_threshold": float("nan")}, "mask_threshold wants a finite number, got nan"),
        ({"max_hole_area": -1}, "max_hole_area wants 0 or more, got -1"),
        ({"max_sprinkle_area": -5}, "max_sprinkle_area wants 0 or more, got -5"),
    ],
)
def test_options_have_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentOptions(**options).checked()


def test_options_are_the_keywords_of_segment():
    assert SegmentOptions(max_hole_area=3).keywords() == {
        "multimask_output": True,
        "mask_threshold": 0.0,
        "max_hole_area": 3,
        "max_sprinkle_area": 0,
    }


def test_settings_are_read_from_attributes():
    assert settings_of(AutomaticSettings, AutomaticSettings(points_per_side=7)).points_per_side == 7

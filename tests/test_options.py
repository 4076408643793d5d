from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.options import AutomaticSettings, SegmentOptions, settings_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_threshold": float("nan")}, "mask_threshold wants a finite number, got nan"),
        ({"mask_threshold": "0"}, "mask_threshold wants a finite number, got '0'"),
        ({"mask_threshold": True}, "mask_threshold wants a finite number, got True"),
        ({"multimask_output": "no"}, "multimask_output wants True or False, got 'no'"),
        ({"max_hole_area": 1.5}, "max_hole_area wants 0 or more, got 1.5"),
        ({"max_hole_area": 2**80}, "max_hole_area wants 0 or more"),
        ({"max_hole_area": float("nan")}, "max_hole_area wants 0 or more, got nan"),
        ({"max_sprinkle_area": False}, "max_sprinkle_area wants 0 or more, got False"),
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


def test_numbers_of_numpy_are_numbers():
    options = SegmentOptions(np.bool_(True), np.float32(0.5), np.int32(3))
    assert options.checked() is options

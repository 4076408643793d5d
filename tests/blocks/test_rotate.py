from __future__ import annotations

import numpy as np
import pytest

from tests.blocks.crops import HW, IMAGE, made


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_picture_is_turned_counterclockwise_and_knows_it(run_one_step, degrees):
    turned = made(run_one_step("image/rotate@v1", {"image": IMAGE}, {"degrees": degrees}))["image"]
    assert np.array_equal(turned.pixels, np.rot90(IMAGE.pixels, degrees // 90))
    assert (turned.parent.turns, turned.parent.hw) == (degrees // 90, HW)


def test_other_angles_are_refused(run_one_step):
    result_of = pytest.raises(Exception, match="Input should be 0, 90, 180 or 270")
    with result_of:
        run_one_step("image/rotate@v1", {"image": IMAGE}, {"degrees": 45})

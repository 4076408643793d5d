from __future__ import annotations

import numpy as np

from tests.blocks.crops import HW, IMAGE, made


def test_tiles_cover_the_picture(run_one_step):
    params = {"tile_px": 32, "overlap": 0.25}
    tiles = made(run_one_step("image/tile@v1", {"image": IMAGE}, params))["tiles"]
    seen = np.zeros(HW, int)
    for tile in tiles:
        x0, y0, x1, y1 = tile.parent.window_xyxy
        assert tile.hw == (32, 32)
        seen[y0:y1, x0:x1] += 1
    assert seen.min() == 1
    assert [tile.id for tile in tiles[:2]] == ["cat-tile0.jpg", "cat-tile1.jpg"]
    [whole] = made(run_one_step("image/tile@v1", {"image": IMAGE}))["tiles"]
    assert whole.hw == HW


def test_too_many_tiles_are_refused(run_one_step):
    params = {"tile_px": 16, "overlap": 0.9, "max_tiles": 10}
    result = run_one_step("image/tile@v1", {"image": IMAGE}, params)
    assert "the 80x60 picture wants" in result.errors[0].message

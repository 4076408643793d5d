import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from shapely import Polygon

from sam2_blocks.masks.outlines import painted_outlines, rle_to_outlines
from sam2_blocks.masks.rle import mask_to_rle

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda hw: arrays(bool, hw))


def filled(outlines, image_hw):
    canvas = np.zeros(image_hw, np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [outline.astype(np.int32)], 1)
    return canvas.astype(bool)


def test_a_square_runs_through_the_centres_of_its_corner_pixels():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    [outline] = rle_to_outlines(mask_to_rle(mask))
    assert outline.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]
    assert outline.dtype == np.int64


def test_filling_gives_a_square_back():
    mask = np.zeros((50, 60), bool)
    mask[7:37, 11:41] = True
    assert np.array_equal(filled(rle_to_outlines(mask_to_rle(mask)), mask.shape), mask)


@given(MASKS)
def test_filling_gives_the_mask_back_without_its_holes(mask):
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    wanted = filled([contour.reshape(-1, 2) for contour in contours], mask.shape)
    found = filled(rle_to_outlines(mask_to_rle(mask)), mask.shape)
    assert np.array_equal(found, wanted)
    assert not (mask & ~found).any()


def test_an_empty_mask_has_no_outline():
    assert rle_to_outlines(mask_to_rle(np.zeros((4, 5), bool))) == []


@pytest.mark.parametrize("tolerance_px", [1.0, 3.0])
def test_a_tolerance_leaves_points_out(tolerance_px):
    yy, xx = np.mgrid[:80, :90]
    rle = mask_to_rle((xx - 45) ** 2 + (yy - 40) ** 2 < 30**2)
    [exact], [simple] = rle_to_outlines(rle), rle_to_outlines(rle, tolerance_px=tolerance_px)
    assert len(simple) < len(exact) / 2
    ring = simple.astype(np.float32)
    far = [cv2.pointPolygonTest(ring, (float(x), float(y)), measureDist=True) for x, y in exact]
    assert max(map(abs, far)) <= tolerance_px


@pytest.mark.parametrize("rounded", [np.round, np.trunc])
def test_outlines_moved_into_pixels_are_painted_as_the_mask(rounded):
    rng = np.random.default_rng(2)
    for sigma in (1.5, 3, 6):
        mask = gaussian_filter(rng.normal(size=(60, 80)), sigma) > 0.02
        rle = mask_to_rle(mask)
        rings = painted_outlines(rle, tolerance_px=0)
        canvas = np.zeros(mask.shape, np.uint8)
        for ring in rings:
            assert Polygon(ring).is_valid
            cv2.fillPoly(canvas, [rounded(ring).astype(np.int32)], 1)
        assert (canvas.astype(bool) == mask).all()


def test_one_pixel_and_pinched_corners_stay_where_they_are():
    for rows in ([[1]], [[0, 1], [1, 0]], [[1, 1, 1], [1, 0, 1], [1, 1, 0]]):
        mask = np.pad(np.array(rows, bool), 1)
        rle = mask_to_rle(mask)
        rings = painted_outlines(rle, tolerance_px=0)
        canvas = np.zeros(mask.shape, np.uint8)
        for ring in rings:
            cv2.fillPoly(canvas, [ring.astype(np.int32)], 1)
        assert (canvas.astype(bool) == mask).all()

"""Without OpenCV, as after a plain ``pip install``, everything is as with it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from sam2_blocks.masks import opencv
from sam2_blocks.masks.outlines import painted_outlines, rle_to_outlines
from sam2_blocks.masks.rle import mask_to_rle
from tests.conftest import ROOT

WITHOUT = """
import json, sys, warnings
warnings.simplefilter("ignore")  # supervision says that OpenCV would be faster
sys.modules["cv2"] = None
from tests.masks.test_opencv import outlines_of_many
print(json.dumps(outlines_of_many()))
"""


def masks():
    """Of any shape and density, with holes and islands in them, and thin ones."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        yield rng.random(tuple(rng.integers(1, 30, 2))) < rng.random()
    yy, xx = np.mgrid[:90, :120]
    far = np.hypot(xx - 60, yy - 45)
    yield (far < 40) & ~((far > 10) & (far < 20))
    yield np.eye(9, dtype=bool)


def outlines_of_many():
    found = []
    for mask in masks():
        rle = mask_to_rle(mask)
        for tolerance_px in (0.0, 1.5):
            traced = rle_to_outlines(rle, tolerance_px=tolerance_px)
            painted = painted_outlines(rle, tolerance_px=tolerance_px)
            found.append([ring.tolist() for ring in (*traced, *painted)])
    return found


def test_outlines_are_those_of_opencv():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == outlines_of_many()


@pytest.mark.parametrize("mask", list(masks())[-2:])
def test_contours_are_of_outer_borders_alone(mask):
    import cv2

    [contour] = opencv.outer_contours(mask.view(np.uint8))
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(canvas, [contour], 1)
    assert not (mask & (canvas == 0)).any()
    simple = opencv.simplify_contour(contour, 2.0)
    assert len(simple) <= len(contour)
    assert (
        max(
            abs(cv2.pointPolygonTest(simple, tuple(map(float, xy)), measureDist=True))
            for [xy] in contour
        )
        <= 2
    )

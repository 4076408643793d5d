"""The rings that are made are what shapely calls valid, and fill the same pixels."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from shapely import Polygon

from sam2_blocks.masks.bridging import bridge_holes, bridge_parts
from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import mask_to_rle, rle_to_mask
from sam2_blocks.masks.tracing import Part

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda hw: arrays(bool, hw))


def drawn(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


ISLANDS = drawn("#######", "#.....#", "#.#.#.#", "#..#..#", "#######", ".......", "#.#.#.#")
STAIRS = drawn("#...", ".#..", "..#.", "...#")
APART = drawn("##.....", "##.....", ".......", "....##.", "....##.")


def test_a_hole_is_joined_by_a_slit_beside_the_centres():
    [part] = bridge_holes([Part(rectangle(0, 0, 5, 5), (rectangle(1, 1, 4, 4)[::-1],))])
    assert part.holes == ()
    assert Polygon(part.outer).is_valid
    assert Polygon(part.outer).area == 16 - 1 / 32
    assert rle_to_mask(polygons_to_rle([part.outer], (5, 5))).sum() == 16


def test_a_hole_that_lies_outside_is_left_out():
    [part] = bridge_holes([Part(rectangle(0, 0, 3, 3), (rectangle(6, 0, 8, 2)[::-1],))])
    assert Polygon(part.outer).area == 9


def test_parts_beside_and_above_each_other_are_joined():
    parts = [Part(rectangle(*box), ()) for box in ((0, 0, 3, 3), (5, 1, 8, 2), (0, 6, 2, 9))]
    joined = bridge_parts(parts, holes=True)
    assert Polygon(joined.outer).is_valid
    assert Polygon(joined.outer).area == 9 + 3 + 6 + 2 / 32 + 3 / 32


@pytest.mark.parametrize("mirrored", [False, True])
def test_parts_that_share_no_row_and_no_column_are_joined_by_a_bar_that_turns(mirrored):
    for mask in (APART, STAIRS):
        mask = mask[::-1] if mirrored else mask
        polygons = rle_to_polygons(mask_to_rle(mask), multipolygon_policy="bridge")
        [ring] = polygons.rings
        assert Polygon(ring).is_valid
        assert polygons.iou == 1


@given(mask=MASKS, holes=st.sampled_from(["keep", "bridge", "fill"]))
@example(mask=ISLANDS, holes="keep")
@example(mask=ISLANDS, holes="bridge")
@example(mask=np.ones((1, 1), bool), holes="bridge")
@pytest.mark.parametrize("parts", ["all", "bridge"])
def test_rings_of_exact_outlines_are_valid(parts, mask, holes):
    polygons = rle_to_polygons(
        mask_to_rle(mask), hole_policy=holes, multipolygon_policy=parts, tolerance_px=0
    )
    for outer, inner in zip(polygons.outer, polygons.holes, strict=True):
        assert Polygon(outer, inner).is_valid
    if holes != "fill":
        assert polygons.iou == 1


@given(mask=MASKS, tolerance=st.sampled_from([0.5, 0.8, 1, 2]))
@example(mask=ISLANDS, tolerance=1)
@pytest.mark.parametrize("parts", ["all", "bridge"])
def test_rings_of_simplified_outlines_are_valid(parts, mask, tolerance):
    polygons = rle_to_polygons(
        mask_to_rle(mask), hole_policy="bridge", multipolygon_policy=parts, tolerance_px=tolerance
    )
    assert all(Polygon(ring).is_valid for ring in polygons.rings)


@pytest.mark.parametrize("tolerance", [0, 0.5, 1])
def test_outlines_of_blobs_with_many_holes_are_valid_and_near(tolerance):
    rng = np.random.default_rng(5)
    for sigma in (1, 2, 4):
        mask = gaussian_filter(rng.normal(size=(150, 200)), sigma) > -0.05 / sigma
        for parts in ("all", "bridge"):
            polygons = rle_to_polygons(
                mask_to_rle(mask),
                hole_policy="bridge",
                multipolygon_policy=parts,
                tolerance_px=tolerance,
            )
            assert all(Polygon(ring).is_valid for ring in polygons.rings)
            area = sum(Polygon(ring).area for ring in polygons.rings)
            assert area == pytest.approx(mask.sum(), rel=0.04)
            assert polygons.iou > {0: 0.9999, 0.5: 0.98, 1: 0.85}[tolerance]


def test_a_limit_of_corners_holds_with_bridges():
    mask = np.kron(ISLANDS, np.ones((9, 11))) > 0
    for limit in (4, 9, 20, 60):
        for parts in ("all", "bridge"):
            polygons = rle_to_polygons(
                mask_to_rle(mask),
                hole_policy="bridge",
                multipolygon_policy=parts,
                max_vertices=limit,
            )
            assert 3 <= polygons.vertex_count <= limit
            assert all(Polygon(ring).is_valid for ring in polygons.rings)

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely import Polygon

from sam2_blocks.masks.rle import mask_to_rle, rle_to_spans
from sam2_blocks.masks.simplifying import simplify
from sam2_blocks.masks.tracing import trace_parts

COMB = np.array([[y < 2 or x % 4 == 0 for x in range(21)] for y in range(12)])  # narrow teeth


def simplified(mask, tolerance, *, most=None, together=False):
    return simplify(
        trace_parts(rle_to_spans(mask_to_rle(mask))),
        tolerance_px=tolerance,
        max_vertices=most,
        hole_cost=3,
        part_cost=3,
        together=together,
    )


def test_simple_shapes_need_their_corners_alone():
    [part] = simplified(np.ones((5, 7), bool), 2)
    assert len(part.outer) == 4


def test_teeth_do_not_cross_whatever_the_tolerance():
    for tolerance in (0.5, 1, 1.5, 2, 3):
        [part] = simplified(COMB, tolerance)
        assert Polygon(part.outer).is_valid


def test_parts_stay_apart_where_asked_to():
    mask = np.zeros((40, 40), bool)
    y, x = np.mgrid[:40, :40]
    mask[np.hypot(x - 20, y - 20) < 18] = True
    mask[np.abs(x - y) < 2] = False  # two halves
    for tolerance in (1, 2, 4):
        one, other = simplified(mask, tolerance, together=True)
        assert not Polygon(one.outer).intersects(Polygon(other.outer))


def test_holes_stay_inside():
    mask = np.ones((30, 30), bool)
    mask[2:28:3, 2:28:3] = False
    [part] = simplified(mask, 0.6)
    assert len(part.holes) == 81
    assert Polygon(part.outer, part.holes).is_valid


@given(
    mask=arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))).filter(np.any),
    tolerance=st.sampled_from([0.3, 0.5, 1, 2.5]),
    together=st.booleans(),
)
def test_corners_found_at_once_are_those_found_one_by_one(mask, tolerance, together):
    at_once = simplified(mask, tolerance, together=together)
    one_by_one = simplified(mask, tolerance, most=10**6, together=together)
    for part, other in zip(at_once, one_by_one, strict=True):
        assert part.outer.tolist() == other.outer.tolist()
        assert [hole.tolist() for hole in part.holes] == [hole.tolist() for hole in other.holes]

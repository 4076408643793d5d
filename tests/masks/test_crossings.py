import numpy as np

from sam2_blocks.masks.crossings import (
    CUT_PX,
    count_crossings,
    cut_shared_corners,
    find_crossings,
    is_tangled,
)

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)


def crossing(*rings, groups=None):
    lengths = np.array([*map(len, rings)])
    groups = np.zeros(len(rings), int) if groups is None else np.array(groups)
    return find_crossings(np.concatenate(rings), lengths, groups).tolist()


def test_rings_apart_have_no_crossings():
    assert crossing(SQUARE, SQUARE + 10, SQUARE / 4 + 1) == []


def test_edges_that_cross_are_numbered():
    assert crossing(SQUARE, SQUARE + np.array([2, 1])) == [1, 2, 4, 7]


def test_touching_counts_and_other_groups_do_not():
    assert crossing(SQUARE, SQUARE + np.array([4, 1])) == [1, 2, 4, 7]
    assert crossing(SQUARE, SQUARE + np.array([4, 1]), groups=[0, 1]) == []


def test_a_bow_tie_and_a_spike_are_tangled():
    assert is_tangled(SQUARE[[0, 2, 1, 3]])
    assert is_tangled(np.array([[0, 0], [4, 0], [2, 0], [2, 3]], float))
    assert not is_tangled(SQUARE)


def test_crossings_are_counted_where_no_rounding_decides():
    bow_tie = SQUARE[[0, 2, 1, 3]]
    assert count_crossings(bow_tie, by=0.1) == 1
    assert count_crossings(bow_tie, by=np.ptp(SQUARE)) == 0  # no end is so far from a line
    star = np.array([[np.sin(turn), np.cos(turn)] for turn in 0.8 * np.pi * np.arange(5)])
    assert count_crossings(star, by=1e-3) == 5


def test_what_touches_or_leads_back_does_not_cross():
    slit = [[0, 0], [4, 0], [4, 2], [3, 2], [4, 2], [4, 4], [0, 4]]
    corner = [[0, 0], [4, 0], [4, 2], [2, 0], [0, 2]]
    for ring in (SQUARE, np.array(slit, float), np.array(corner, float)):
        assert count_crossings(ring, by=0) == 0
    assert is_tangled(np.array(slit, float))
    assert is_tangled(np.array(corner, float))


def test_many_edges_are_looked_at_in_turns(monkeypatch):
    monkeypatch.setattr("sam2_blocks.masks.crossings._PAIRS", 3)
    rings = [SQUARE + np.array([5 * x, 5 * y]) for x in range(4) for y in range(4)]
    assert crossing(*rings) == []
    assert crossing(*rings, SQUARE + np.array([2, 2])) != []


def test_a_corner_of_two_rings_is_cut_off_the_later_one():
    cut = cut_shared_corners(
        np.concatenate((SQUARE, SQUARE + 4)), np.array([4, 4]), np.zeros(2, int)
    )
    assert cut.lengths.tolist() == [4, 5]
    assert cut.points[4:6].tolist() == [[4, 4 + CUT_PX], [4 + CUT_PX, 4]]
    assert cut.origin.tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 7]


def test_corners_of_other_groups_are_left():
    cut = cut_shared_corners(np.concatenate((SQUARE, SQUARE + 4)), np.array([4, 4]), np.arange(2))
    assert cut.lengths.tolist() == [4, 4]

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.polygons import Polygons, rle_to_polygons, rles_to_polygons
from sam2_blocks.masks.rle import mask_to_rle, rle_to_coco, rle_to_mask
from sam2_blocks.masks.stopping import stopping

HW = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = HW.flatmap(lambda hw: arrays(bool, hw))
HOLE_POLICIES = ("keep", "bridge", "fill")
MULTIPOLYGON_POLICIES = ("all", "bridge", "largest")


def drawn(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def area(ring: np.ndarray) -> float:
    following = np.roll(ring, -1, axis=0)
    return float(ring[:, 0] @ following[:, 1] - ring[:, 1] @ following[:, 0]) / 2


def corners(ring: np.ndarray) -> set[tuple[float, float]]:
    return {(x, y) for x, y in ring.tolist()}


RING = drawn(
    "#####",
    "#...#",
    "#.#.#",
    "#...#",
    "#####",
)
PINCHED = drawn(  # the background inside and outside touch at one corner
    "###",
    "#.#",
    "##.",
)


def disc(radius: int, hole_radius: int = 0) -> np.ndarray:
    y, x = np.mgrid[: 2 * radius + 3, : 2 * radius + 3] - radius - 1
    return (np.hypot(x, y) <= radius) & (np.hypot(x, y) >= hole_radius)


def test_a_pixel_is_the_square_to_its_right_and_below():
    polygons = rle_to_polygons(mask_to_rle(drawn("...", "..#")))
    assert corners(polygons.outer[0]) == {(2, 1), (3, 1), (3, 2), (2, 2)}
    assert polygons.holes == ((),)
    assert polygons.iou == 1


def test_an_empty_mask_has_no_rings():
    polygons = rle_to_polygons(
        mask_to_rle(drawn("..")),
        hole_policy="bridge",
        multipolygon_policy="bridge",
        tolerance_px=1,
    )
    assert polygons.rings == ()
    assert polygons.iou == 1
    assert polygons.to_coco_segmentation() == []


def test_parts_come_largest_first_with_their_own_holes():
    polygons = rle_to_polygons(mask_to_rle(RING))
    assert [area(ring) for ring in polygons.outer] == [25, 1]
    assert [[area(ring) for ring in holes] for holes in polygons.holes] == [[-9], []]


def test_parts_that_touch_at_a_corner_stay_apart():
    polygons = rle_to_polygons(mask_to_rle(drawn("#.", ".#")))
    assert [len(ring) for ring in polygons.outer] == [4, 4]


def test_a_pinched_outline_is_cut_into_simple_rings():
    polygons = rle_to_polygons(mask_to_rle(PINCHED))
    assert len(polygons.outer) == 1
    assert [area(hole) for hole in polygons.holes[0]] == [-1]


@given(MASKS)
@example(RING)
@example(PINCHED)
def test_an_exact_outline_gives_the_mask_back(mask):
    polygons = rle_to_polygons(mask_to_rle(mask))
    assert polygons.iou == 1
    assert np.array_equal(rle_to_mask(polygons_to_rle(polygons.rings, mask.shape)), mask)
    assert sum(area(ring) for ring in polygons.rings) == mask.sum()
    assert all(area(ring) > 0 for ring in polygons.outer)
    assert all(area(ring) < 0 for holes in polygons.holes for ring in holes)
    assert all(len(corners(ring)) == len(ring) for ring in polygons.rings)


@given(mask=MASKS)
@example(mask=RING)
def test_bridged_holes_are_exact_for_pycocotools_too(mask):
    height, width = mask.shape
    polygons = rle_to_polygons(mask_to_rle(mask), hole_policy="bridge")
    assert polygons.iou == 1
    assert not any(polygons.holes)
    if mask.any():
        coco = coco_mask.frPyObjects(polygons.to_coco_segmentation(), height, width)
        assert coco_mask.merge(coco)["counts"].decode() == rle_to_coco(mask_to_rle(mask))["counts"]


@given(mask=MASKS)
@example(mask=RING)
def test_bridged_parts_are_one_exact_ring(mask):
    polygons = rle_to_polygons(
        mask_to_rle(mask), hole_policy="bridge", multipolygon_policy="bridge"
    )
    assert polygons.iou == 1
    assert len(polygons.rings) == mask.any()


def test_the_largest_part_can_be_had_alone():
    polygons = rle_to_polygons(mask_to_rle(RING), multipolygon_policy="largest")
    assert [area(ring) for ring in polygons.rings] == [25, -9]
    assert polygons.iou == 16 / 17


def test_filled_holes_lower_the_iou():
    polygons = rle_to_polygons(mask_to_rle(RING), hole_policy="fill", multipolygon_policy="largest")
    assert [area(ring) for ring in polygons.rings] == [25]
    assert polygons.iou == 17 / 25


def test_coco_polygons_refuse_holes():
    polygons = rle_to_polygons(mask_to_rle(RING))
    with pytest.raises(ValueError, match="no holes; use hole_policy='bridge'"):
        polygons.to_coco_segmentation()


def distance_to_outline(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    line = np.roll(ring, -1, axis=0) - ring
    offset = points[:, None] - ring
    along = np.clip((offset * line).sum(axis=2) / (line**2).sum(axis=1), 0, 1)
    return np.linalg.norm(offset - along[..., None] * line, axis=2).min(axis=1)


@pytest.mark.parametrize("tolerance", [0.5, 1, 3])
def test_no_corner_is_farther_from_the_simplified_outline_than_the_tolerance(tolerance):
    rle = mask_to_rle(disc(40))
    (exact,) = rle_to_polygons(rle).outer
    simple = rle_to_polygons(rle, tolerance_px=tolerance)
    assert distance_to_outline(exact, simple.outer[0]).max() <= tolerance
    assert simple.vertex_count < len(exact)
    assert simple.iou > 0.9


def test_small_holes_and_parts_close_within_the_tolerance():
    mask = disc(20, hole_radius=2)
    mask[0, 0] = True
    exact = rle_to_polygons(mask_to_rle(mask))
    assert (len(exact.outer), len(exact.holes[0])) == (2, 1)
    simple = rle_to_polygons(mask_to_rle(mask), tolerance_px=3)
    assert (len(simple.outer), len(simple.holes[0])) == (1, 0)


def test_a_single_pixel_survives_any_tolerance():
    polygons = rle_to_polygons(mask_to_rle(drawn("...", ".#.")), tolerance_px=100)
    assert polygons.vertex_count == 4
    assert polygons.iou == 1


def test_a_large_enough_vertex_limit_changes_nothing():
    rle = mask_to_rle(disc(20, hole_radius=5))
    exact = rle_to_polygons(rle)
    limited = rle_to_polygons(rle, max_vertices=exact.vertex_count)
    assert [corners(ring) for ring in limited.rings] == [corners(ring) for ring in exact.rings]


def test_more_vertices_never_hurt_a_disc():
    rle = mask_to_rle(disc(40))
    ious = [rle_to_polygons(rle, max_vertices=most).iou for most in (4, 8, 16, 32, 64)]
    assert ious == sorted(ious)
    assert ious[0] > 0.6
    assert ious[-1] > 0.97


@given(
    MASKS,
    st.integers(4, 40),
    st.sampled_from([0, 0.4, 1.5]),
    st.sampled_from(HOLE_POLICIES),
    st.sampled_from(MULTIPOLYGON_POLICIES),
)
def test_the_vertex_limit_holds_for_all_policies(mask, limit, tolerance, holes, parts):
    polygons = rle_to_polygons(
        mask_to_rle(mask),
        hole_policy=holes,
        multipolygon_policy=parts,
        tolerance_px=tolerance,
        max_vertices=limit,
    )
    assert polygons.vertex_count <= limit
    assert bool(polygons.rings) == mask.any()
    assert all(len(ring) >= 3 for ring in polygons.rings)
    assert 0 <= polygons.iou <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hole_policy": "drop"}, "hole_policy must be one of keep, bridge, fill, got 'drop'"),
        ({"multipolygon_policy": "one"}, "multipolygon_policy must be one of all, bridge, largest"),
        ({"tolerance_px": -1}, "tolerance_px must be 0 or a positive number, got -1"),
        ({"tolerance_px": float("nan")}, "tolerance_px must be 0 or a positive number, got nan"),
        ({"max_vertices": 3}, "max_vertices must be at least 4, got 3"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rle_to_polygons(mask_to_rle(RING), **options)


def test_a_polygons_value_can_be_made_by_hand():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    polygons = Polygons((4, 4), (square,), ((),), iou=1)
    assert polygons.vertex_count == 4
    assert polygons.to_coco_segmentation() == [[0, 0, 2, 0, 2, 2, 0, 2]]


NESTED = drawn(
    "#########",
    "#.......#",
    "#.#####.#",
    "#.#...#.#",
    "#.#.#.#.#",
    "#.#...#.#",
    "#.#####.#",
    "#.......#",
    "#########",
)


def as_read(polygons: Polygons) -> np.ndarray:
    """What a reader makes of it who fills one outer ring with its holes after the other."""
    parts = zip(polygons.outer, polygons.holes, strict=True)
    filled = [
        rle_to_mask(polygons_to_rle([outer, *holes], polygons.size)) for outer, holes in parts
    ]
    return np.logical_or.reduce(filled, initial=False, axis=0) | np.zeros(polygons.size, bool)


def claimed_and_read(mask, **options) -> tuple[float, float]:
    polygons = rle_to_polygons(mask_to_rle(mask), **options)
    read = as_read(polygons)
    union = (mask | read).sum()
    return polygons.iou, (mask & read).sum() / union if union else 1.0


@pytest.mark.parametrize("hole_policy", HOLE_POLICIES)
@pytest.mark.parametrize("multipolygon_policy", MULTIPOLYGON_POLICIES)
@given(mask=MASKS, tolerance_px=st.sampled_from([0, 0.8, 2]))
@example(mask=RING, tolerance_px=0)
@example(mask=NESTED, tolerance_px=0)
@example(mask=NESTED, tolerance_px=1)
@example(mask=np.kron(NESTED, np.ones((4, 3))) > 0, tolerance_px=1)
def test_what_polygons_claim_is_what_a_reader_gets(
    hole_policy, multipolygon_policy, mask, tolerance_px
):
    claimed, read = claimed_and_read(
        mask,
        hole_policy=hole_policy,
        multipolygon_policy=multipolygon_policy,
        tolerance_px=tolerance_px,
    )
    assert claimed == pytest.approx(read)


def test_what_lies_in_a_filled_hole_is_filled_with_it():
    for multipolygon_policy in MULTIPOLYGON_POLICIES:
        polygons = rle_to_polygons(
            mask_to_rle(NESTED), hole_policy="fill", multipolygon_policy=multipolygon_policy
        )
        assert [area(ring) for ring in polygons.outer] == [81]
        assert polygons.iou == pytest.approx(NESTED.sum() / 81)


@pytest.mark.parametrize("hole_policy", HOLE_POLICIES)
@pytest.mark.parametrize("multipolygon_policy", MULTIPOLYGON_POLICIES)
@given(
    masks=st.lists(MASKS, max_size=4),
    tolerance_px=st.sampled_from([0, 0.8, 2]),
    most=st.sampled_from([None, None, 6]),
)
@example(masks=[RING, np.zeros((2, 2), bool), NESTED, RING], tolerance_px=0.8, most=None)
def test_masks_traced_together_are_as_each_alone(
    hole_policy, multipolygon_policy, masks, tolerance_px, most
):
    options = {"hole_policy": hole_policy, "multipolygon_policy": multipolygon_policy}
    options |= {"tolerance_px": tolerance_px, "max_vertices": most}
    together = rles_to_polygons(map(mask_to_rle, masks), **options)
    for mask, polygons in zip(masks, together, strict=True):
        alone = rle_to_polygons(mask_to_rle(mask), **options)
        assert [ring.tolist() for ring in polygons.rings] == [r.tolist() for r in alone.rings]
        assert (polygons.size, polygons.iou) == (alone.size, alone.iou)


def test_many_masks_are_traced_in_batches(monkeypatch):
    monkeypatch.setattr("sam2_blocks.masks.polygons._RUNS", 5)
    traced = rles_to_polygons([mask_to_rle(RING)] * 5, tolerance_px=0.5)
    assert [len(polygons.rings) for polygons in traced] == [3] * 5


def test_a_long_trace_ends_when_nobody_waits_for_it():
    noise = np.random.default_rng(0).random((200, 200)) < 0.5
    asked = []

    def gone():
        asked.append(True)
        raise TimeoutError("nobody waits")

    with pytest.raises(TimeoutError, match="nobody waits"), stopping(gone):
        rle_to_polygons(mask_to_rle(noise))
    assert len(asked) == 1
    assert rle_to_polygons(mask_to_rle(noise)).iou == 1


@pytest.mark.parametrize("options", [{}, {"hole_policy": "bridge"}, {"tolerance_px": 1.0}])
def test_every_long_loop_of_a_trace_looks_up(options):
    noise = np.random.default_rng(0).random((200, 200)) < 0.5
    turns = []
    with stopping(lambda: turns.append(True)):
        rle_to_polygons(mask_to_rle(noise), **options)
    assert len(turns) > 100

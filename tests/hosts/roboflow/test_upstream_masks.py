"""What Roboflow's own tests of masks that are written, sent and moved expect, asked of ours.

Source: roboflow/inference, ``tests/workflows/unit_tests/core_steps/common``
(``test_serializers.py``, ``test_rle_compact.py``, ``test_rle_embed.py``) and
``tests/inference/unit_tests/core/utils/test_rle_to_polygon.py``; the same inputs and expectations,
written anew. Where run lengths there are placeholders, these are real. ``tests/hosts/upstream.py``
counts them.
"""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from pycocotools import mask as coco

from sam2_blocks.masks.rle import (
    coco_to_rle,
    mask_to_rle,
    masks_to_prediction,
    rle_paste,
    rle_to_coco,
    rle_to_mask,
)
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.service.answers import to_polygon_rows
from tests.hosts.roboflow.conftest import IGNORED

pytestmark = pytest.mark.filterwarnings(IGNORED)

SIZE = {"width": 168, "height": 192}
SQUARE = [[1, 1], [1, 10], [10, 10], [10, 1]]
ORIGINS = {
    "parent_id": ["crop_id"],
    "root_parent_id": ["original_image"],
    "parent_coordinates": [[50, 75]],
    "parent_dimensions": [[600, 800]],
    "root_parent_coordinates": [[150, 200]],
    "root_parent_dimensions": [[1080, 1920]],
}
ORIGINS_WRITTEN = {
    "parent_id": "crop_id",
    "parent_origin": {"offset_x": 50, "offset_y": 75, "width": 800, "height": 600},
    "root_parent_id": "original_image",
    "root_parent_origin": {"offset_x": 150, "offset_y": 200, "width": 1920, "height": 1080},
}
KEYPOINTS = [
    [(1, "nose", 0.1, 11, 11), (2, "ear", 0.2, 12, 13), (3, "eye", 0.3, 14, 15)],
    [
        (1, "nose", 0.1, 16, 16),
        (2, "ear", 0.2, 17, 17),
        (3, "eye", 0.3, 18, 18),
        (4, "tail", 0.4, 19, 19),
    ],
]
ROWS = [
    {"width": 1.0, "height": 1.0, "x": 1.5, "y": 1.5, "confidence": 0.1, "class_id": 1}
    | {"tracker_id": 1, "class": "cat", "detection_id": "first", "parent_id": "image"},
    {"width": 1.0, "height": 1.0, "x": 3.5, "y": 3.5, "confidence": 0.9, "class_id": 2}
    | {"tracker_id": 2, "class": "dog", "detection_id": "second", "parent_id": "image"},
]


@pytest.fixture
def write(engine_class):
    from sam2_blocks.hosts.roboflow.values import serialize_masks

    return serialize_masks


@pytest.fixture
def write_rle(engine_class):
    from sam2_blocks.hosts.roboflow.values import serialize_rle_masks

    return serialize_rle_masks


def pets(masks=None, count=2, **columns):
    """The cat and the dog that these tests are about."""
    data = {
        "class_name": np.array(["cat", "dog"][:count]),
        "detection_id": np.array(["first", "second"][:count]),
        "parent_id": np.array(["image"] * count),
        "image_dimensions": np.array([[192, 168]] * count),
    }
    return sv.Detections(
        xyxy=np.array([[1, 1, 2, 2], [3, 3, 4, 4]][:count], np.float64),
        mask=None if masks is None else np.array(masks, bool),
        confidence=np.array([0.1, 0.9][:count]),
        class_id=np.array([1, 2][:count]),
        tracker_id=np.array([1, 2][:count]),
        data=data | {name: np.array(column) for name, column in columns.items()},
    )


def filled(polygon):
    return sv.polygon_to_mask(np.array(polygon), resolution_wh=(15, 15))


def points(*pairs):
    return [{"x": float(x), "y": float(y)} for x, y in pairs]


def with_keypoints():
    """Columns of key points, and what is written of them."""
    names = ("class_id", "class_name", "confidence")
    given = {
        f"keypoints_{name}": objects([np.array([row[k] for row in one]) for one in KEYPOINTS])
        for k, name in enumerate(names)
    }
    given["keypoints_xy"] = objects([np.array([r[3:] for r in one], float) for one in KEYPOINTS])
    keys = ("class_id", "class", "confidence", "x", "y")
    return given, [[dict(zip(keys, row, strict=True)) for row in one] for one in KEYPOINTS]


def objects(arrays):
    column = np.empty(len(arrays), object)
    column[:] = arrays
    return column


PIXEL = np.zeros((15, 15), bool)
PIXEL[1, 1] = True


@pytest.mark.parametrize(
    ("cat", "outline"),
    [(filled(SQUARE), SQUARE), (PIXEL, [[1, 1]] * 3), (np.zeros((15, 15)), None)],
    ids=["a mask", "a mask of one pixel", "an empty mask"],
)
def test_outlines_are_written_beside_all_columns(write, cat, outline):
    """A point is written thrice; a row whose mask is empty is left out."""
    keypoints, written = with_keypoints()
    found = write(pets([cat, filled(SQUARE)], data=["some", "other"], **keypoints))
    rows = [
        {**row, "data": more, "points": points(*(ring or [])), "keypoints": keys}
        for row, more, ring, keys in zip(
            ROWS, ["some", "other"], [outline, SQUARE], written, strict=True
        )
    ]
    assert found == {"image": SIZE, "predictions": rows if outline else rows[1:]}


@pytest.mark.parametrize("is_crop", [True, False])
def test_origins_of_crops_are_written_and_of_pictures_not(write, is_crop):
    columns = ORIGINS if is_crop else {**ORIGINS, "parent_id": ["original_image"]}
    if not is_crop:
        columns |= {f"root_{name}": columns[name] for name in ORIGINS if name.startswith("parent")}
    detections = pets(count=1, **columns)
    detections.tracker_id = None
    row = {name: value for name, value in ROWS[0].items() if name != "tracker_id"}
    wanted = ORIGINS_WRITTEN if is_crop else {"parent_id": "original_image"}
    if not is_crop:
        wanted["root_parent_id"] = "original_image"
    [found] = write(detections)["predictions"]
    assert {**row, **wanted} == found | {"root_parent_id": wanted["root_parent_id"]}


def test_after_scaling_the_largest_outline_is_written(write):
    from roboflow_workflows.core_steps.common.utils import scale_sv_detections

    side, target = 4096, 2080
    mask = np.zeros((side, side), bool)
    mask[400:1600, 3100:] = True
    for y in range(400, 1600):
        mask[y, 3100 : 3100 + int(80 * np.sin(y / 40.0) + 40)] = False
    mask[820:828, 3088:3096] = True
    found = pets([mask], count=1, image_dimensions=[[side, side]])
    found.xyxy = np.array([[3088.0, 400, side - 1, 1600]])
    scale = target / side
    scaled = scale_sv_detections(found, scale=(scale, scale), target_size_wh=(target, target))
    written = write(scaled)
    [row] = written["predictions"]
    xs, ys = ([point[axis] for point in row["points"]] for axis in "xy")
    assert max(xs) - min(xs) > row["width"] * 0.5
    assert max(ys) - min(ys) > row["height"] * 0.5
    assert max(xs) >= 2070
    assert written["image"] == {"width": target, "height": target}


def drawn(*rectangles, holes=()):
    mask = np.zeros((128, 128), bool)
    for rows, columns in rectangles:
        mask[slice(*rows), slice(*columns)] = True
    for rows, columns in holes:
        mask[slice(*rows), slice(*columns)] = False
    return mask


@pytest.mark.parametrize(
    ("mask", "outline"),
    [
        (drawn(), None),
        (drawn(((40, 41), (50, 51))), [(50, 40)] * 3),
        (drawn(((40, 41), (50, 60))), [(50, 40), (59, 40), (59, 40)]),
        (drawn(((40, 50), (50, 60))), [(50, 40), (50, 49), (59, 49), (59, 40)]),
    ],
    ids=["nothing", "a point", "a line", "a shape"],
)
def test_an_outline_is_that_of_the_mask(write_rle, mask, outline):
    """Of an empty mask there is none; short ones are padded to three points."""
    [row] = write_rle(pets([mask], count=1))["predictions"]
    assert row.get("points") == (None if outline is None else points(*outline))


def test_a_padded_outline_is_filled_to_the_mask(write_rle):
    mask = drawn(((40, 41), (50, 60)))
    [row] = write_rle(pets([mask], count=1))["predictions"]
    ring = np.array([[point["x"], point["y"]] for point in row["points"]], int)
    assert np.array_equal(sv.polygon_to_mask(ring, resolution_wh=(128, 128)), mask)


@pytest.mark.parametrize(
    ("mask", "lowest", "highest"),
    [
        (drawn(((10, 14), (10, 14)), ((40, 80), (50, 100))), (50, 40), (99, 79)),
        (drawn(((10, 110), (20, 100)), holes=[((20, 100), (30, 90))]), (20, 10), (99, 109)),
    ],
    ids=["several parts", "a hole"],
)
def test_the_outline_is_the_outer_one_of_the_largest_part(write_rle, mask, lowest, highest):
    [row] = write_rle(pets([mask], count=1))["predictions"]
    ring = np.array([[point["x"], point["y"]] for point in row["points"]])
    assert (tuple(ring.min(axis=0)), tuple(ring.max(axis=0))) == (lowest, highest)


def encoded(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


def text(rle):
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


TALL = np.zeros((192, 168), bool)
TALL[20:90, 30:70] = True
WIDE = np.zeros((192, 168), bool)
WIDE[100:110, 5:160] = True


def test_run_lengths_alone_are_written_as_they_are(write_rle):
    rles = [text(encoded(mask)) for mask in (TALL, WIDE)]
    written = write_rle(pets(rle_mask=objects(rles)))
    rows = [{**row, "rle_mask": rle} for row, rle in zip(ROWS, rles, strict=True)]
    assert written == {"image": SIZE, "predictions": rows}


def test_counts_in_bytes_are_written_as_text(write_rle):
    rle = encoded(TALL)
    assert isinstance(rle["counts"], bytes)
    [row] = write_rle(pets(count=1, rle_mask=objects([rle])))["predictions"]
    assert row["rle_mask"] == text(rle)


def test_run_lengths_of_crops_are_written_with_their_origins(write_rle):
    rle = text(encoded(TALL))
    detections = pets(count=1, rle_mask=objects([rle]), **ORIGINS)
    [row] = write_rle(detections)["predictions"]
    assert row == {**ROWS[0], **ORIGINS_WRITTEN, "rle_mask": rle}


def test_a_row_whose_mask_is_empty_stays_among_run_lengths(write_rle):
    masks = np.zeros((2, 4, 4), bool)
    masks[1, 0:2, 0:2] = True
    rles = [text(encoded(mask)) for mask in masks]
    found = pets(masks, detection_id=["empty-id", "body-id"], rle_mask=objects(rles))
    rows = write_rle(found)["predictions"]
    assert [row["detection_id"] for row in rows] == ["empty-id", "body-id"]
    assert [row["rle_mask"] for row in rows] == rles
    assert np.array_equal(found.mask, masks)


def test_boxes_alone_are_written_where_there_they_are_an_error(write_rle):
    from roboflow_workflows.core_steps.common.serializers import serialise_rle_sv_detections

    found = pets(count=1)
    with pytest.raises(ValueError, match="No RLE masks found"):
        serialise_rle_sv_detections(found)
    assert write_rle(found)["predictions"] == [ROWS[0]]


# --- run lengths and masks ----------------------------------------------------------------------


def test_run_lengths_of_coco_are_read():
    rng = np.random.default_rng(0)
    for _ in range(100):
        hw = rng.integers(1, 40, 2)
        mask = rng.random(hw) < rng.random()
        rle = coco_to_rle(text(encoded(mask)))
        assert rle.counts.sum() == mask.size
        assert np.array_equal(rle_to_mask(rle), mask)


def some_masks(rng):
    """Up to five masks of one size: empty, full, or noise in a rectangle."""
    high, wide = rng.integers(8, 64, 2)
    masks = np.zeros((rng.integers(0, 6), high, wide), bool)
    for mask in masks:
        kind = rng.random()
        if kind > 0.30:
            (y0, y1), (x0, x1) = (np.sort(rng.integers(0, side, 2)) for side in (high, wide))
            mask[y0 : y1 + 1, x0 : x1 + 1] = rng.random((y1 - y0 + 1, x1 - x0 + 1)) < 0.6
        else:
            mask[:] = kind > 0.15
    return masks


@pytest.mark.parametrize("seed", range(25))
def test_compact_masks_of_run_lengths_are_the_masks(seed):
    masks = some_masks(np.random.default_rng(seed))
    hw = masks.shape[1:]
    stack = MaskStack.from_rles([coco_to_rle(encoded(mask)) for mask in masks], hw)
    assert stack.to_dense().shape == masks.shape
    assert np.array_equal(stack.to_dense(), masks)
    for index, mask in enumerate(masks):
        assert np.array_equal(stack[index], mask)


def corner(first):
    mask = np.zeros((7, 5), bool)
    mask[(0, 0) if first else (-1, -1)] = True
    mask[2:4, 1:3] = True
    return mask


@pytest.mark.parametrize("mask", [corner(True), corner(False), np.ones((5, 9), bool)])
def test_masks_that_begin_or_end_inside_are_read(mask):
    rle = mask_to_rle(mask)
    assert (rle.counts[0] == 0) == mask[0, 0]
    assert (len(rle.counts) % 2 == 0) == mask[-1, -1]
    assert rle.counts.sum() == mask.size
    assert np.array_equal(coco.decode(rle_to_coco(rle)).astype(bool), mask)
    stack = MaskStack.from_rles([coco_to_rle(encoded(mask))], mask.shape)
    assert np.array_equal(stack.to_dense()[0], mask)


def test_compact_masks_keep_no_more_than_their_boxes():
    rng = np.random.default_rng(123)
    masks = np.zeros((4, 80, 100), bool)
    for mask in masks:
        x, y = rng.integers(0, 70), rng.integers(0, 50)
        mask[y : y + 20, x : x + 25] = True
    stack = MaskStack.from_rles([coco_to_rle(encoded(mask)) for mask in masks], (80, 100))
    assert isinstance(stack, sv.CompactMask)
    assert np.array_equal(stack.to_dense(), masks)
    assert np.prod(stack._crop_shapes, axis=1).sum() == 4 * 20 * 25


def test_no_masks_have_a_size():
    assert MaskStack.from_rles([], (50, 50)).to_dense().shape == (0, 50, 50)


def noise(seed, hw):
    return np.random.default_rng(seed).integers(0, 2, hw).astype(bool)


PASTED = {
    "inside": (noise(1, (6, 8)), (5, 4), (20, 25)),
    "at the corner": (noise(2, (7, 9)), (0, 0), (15, 18)),
    "several": (noise(3, (5, 6)), (3, 7), (20, 16)),
    "nothing in it": (np.zeros((4, 5), bool), (2, 1), (12, 14)),
    "full": (np.ones((4, 5), bool), (2, 1), (12, 14)),
    "empty and full columns": (
        np.array([[0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 1, 1]], bool),
        (4, 2),
        (10, 12),
    ),
    "all of it": (noise(4, (8, 11)), (0, 0), (8, 11)),
    "at the end": (noise(5, (6, 7)), (11, 14), (20, 18)),
    "one pixel": (np.ones((1, 1), bool), (9, 13), (30, 25)),
}


def check_pasted(mask, corner_xy, hw):
    (x, y), (high, wide) = corner_xy, mask.shape
    wanted = np.zeros(hw, bool)
    wanted[y : y + high, x : x + wide] = mask
    pasted = rle_paste(coco_to_rle(encoded(mask)), corner_xy, hw)
    assert pasted.size == hw
    assert np.array_equal(rle_to_mask(pasted), wanted)


@pytest.mark.parametrize("where", PASTED)
def test_the_mask_of_a_crop_is_put_where_the_crop_lies(where):
    check_pasted(*PASTED[where])


@pytest.mark.parametrize("seed", range(12))
def test_any_small_mask_is_put_where_it_lies(seed):
    rng = np.random.default_rng(seed)
    high, wide = rng.integers(1, 9, 2).tolist()
    hw = (high + int(rng.integers(0, 12)), wide + int(rng.integers(0, 12)))
    corner_xy = (int(rng.integers(0, hw[1] - wide + 1)), int(rng.integers(0, hw[0] - high + 1)))
    for _ in range(int(rng.integers(1, 4))):
        check_pasted(rng.integers(0, 2, (high, wide)).astype(bool), corner_xy, hw)


@pytest.mark.parametrize(
    ("hw", "corner_xy"), [((4, 6), (5, 0)), ((6, 4), (0, 5)), ((4, 4), (-1, 0))]
)
def test_a_crop_that_reaches_outside_is_refused(hw, corner_xy):
    with pytest.raises(ValueError, match="is not inside the 10x10 image"):
        rle_paste(mask_to_rle(np.ones(hw, bool)), corner_xy, (10, 10))


def test_no_masks_of_a_crop_have_the_size_of_the_picture():
    moved = MaskStack.from_rles([], (10, 12)).with_offset(2, 3, (20, 30))
    assert moved.to_dense().shape == (0, 20, 30)


# --- polygons of the service --------------------------------------------------------------------


def adversarial():
    """Masks that outlines go wrong on: pixels, borders, rings, holes, diagonals, equal parts."""
    pixels = np.zeros((12, 14), bool)
    pixels[[0, 5, 11], [0, 7, 13]] = True
    border = np.zeros((12, 14), bool)
    border[0:8, 0:5] = border[4:12, 9:14] = True
    ring = np.zeros((18, 20), bool)
    ring[2:16, 2:18] = True
    ring[5:13, 6:14] = False
    holes = np.zeros((18, 22), bool)
    holes[2:16, 2:20] = True
    holes[5:13, 5:8] = holes[5:13, 13:16] = False
    diagonal = np.zeros((16, 16), bool)
    for index in range(2, 14):
        diagonal[index, index - 1 : index + 1] = True
    parts = np.zeros((16, 20), bool)
    parts[2:6, 2:6] = parts[10:14, 14:18] = True
    jagged = np.zeros((24, 26), bool)
    jagged[3:20, 4:22] = True
    jagged[7:11, 8:20] = jagged[14:18, 9:17] = False
    jagged[5:9, 21:24] = jagged[18:23, 2:9] = True
    empty, full = np.zeros((12, 14), bool), np.ones((12, 14), bool)
    return [empty, pixels, full, border, ring, holes, diagonal, parts, jagged]


def check_outlines(mask):
    """Polygons of an answer are all that OpenCV finds, hence the longest, which theirs takes."""
    import cv2

    how = (cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    wanted = [ring[:, 0].tolist() for ring in cv2.findContours(mask.astype(np.uint8), *how)[0]]
    [row] = to_polygon_rows(masks_to_prediction(mask[None]))
    assert sorted(row.masks) == sorted(wanted)


@pytest.mark.parametrize("index", range(9))
def test_polygons_of_adversarial_masks_are_those_of_the_dense_way(index):
    check_outlines(adversarial()[index])


@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (5, 7), (16, 17), (31, 29), (64, 64)])
def test_polygons_of_random_masks_are_those_of_the_dense_way(hw):
    rng = np.random.default_rng(20260530)
    for density in (0.0, 0.01, 0.05, 0.15, 0.35, 0.65, 1.0):
        for _ in range(8):
            check_outlines(rng.random(hw) < density)

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.rle import mask_to_rle, rle_to_mask
from sam2_blocks.strategies.detect import (
    TileSettings,
    check_classes,
    choose_objects,
    detect_in_tiles,
    suppress_objects,
    tile_places,
)
from sam2_blocks.values import Image

NAMES = np.array(["red", "green", "blue"])


def found_at(hw, boxes, confidence=None, class_ids=None, rles=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ids = np.zeros(len(boxes), np.int64) if class_ids is None else np.array(class_ids, np.int64)
    scores = np.full(len(boxes), 0.5) if confidence is None else np.array(confidence)
    return FoundObjects(hw, boxes, scores.astype(np.float32), ids, tuple(NAMES[ids]), rles)


def squares(image):
    """Find squares of one colour, as a detector that sees small things alone would."""
    boxes, ids, rles = [], [], []
    for channel in range(3):
        mask = image.pixels[..., channel] > 0
        if mask.any():
            rows, columns = np.nonzero(mask)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            ids.append(channel)
            rles.append(mask_to_rle(mask))
    scores = [0.5 + 0.1 * channel for channel in ids]
    return found_at(image.hw, boxes, scores, ids, tuple(rles))


def find(images):
    return [squares(image) for image in images]


def picture(*boxes, hw=(200, 300)):
    pixels = np.zeros((*hw, 3), np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1, channel] = 255
    return Image(pixels)


def test_without_tiles_the_answer_is_the_detectors():
    answer = found_at((200, 300), [[5, 5, 9, 9], [5, 5, 9, 9]], [0.1, 0.9])
    [found] = detect_in_tiles(lambda images: [answer], [picture()])
    assert found is answer


def test_small_pictures_have_no_tiles():
    looked = []
    detect_in_tiles(
        lambda images: [looked.append(image.hw) or squares(image) for image in images],
        [picture(hw=(90, 100)), picture(hw=(101, 100))],
        TileSettings(tile_px=100),
    )
    assert looked == [(90, 100), (101, 100), (100, 100), (100, 100)]


def test_what_lies_in_one_tile_comes_back_where_it_is_once():
    box = (210, 120, 230, 140)
    [found] = detect_in_tiles(find, [picture(box)], TileSettings(tile_px=100, overlap=0.5))
    assert found.boxes_xyxy.tolist() == [list(map(float, box))]
    assert rle_to_mask(found.rles[0])[120:140, 210:230].all()
    assert found.rles[0].size == (200, 300)


def test_what_is_larger_than_a_tile_is_found_whole():
    box = (20, 30, 280, 170)
    [found] = detect_in_tiles(find, [picture(box)], TileSettings(tile_px=100, overlap=0.2))
    assert found.boxes_xyxy.tolist() == [list(map(float, box))]


def test_a_piece_stays_where_nothing_whole_covers_it():
    def only_in_tiles(images):
        return [
            squares(image) if image.hw != (200, 300) else found_at(image.hw, []) for image in images
        ]

    [found] = detect_in_tiles(
        only_in_tiles, [picture((80, 30, 120, 60))], TileSettings(tile_px=100, overlap=0)
    )
    assert sorted(found.boxes_xyxy.tolist()) == [[80, 30, 100, 60], [100, 30, 120, 60]]


def test_objects_of_two_classes_in_one_place_both_stay():
    box = (210, 120, 230, 140)
    [found] = detect_in_tiles(find, [picture(box, box)], TileSettings(tile_px=100, overlap=0.5))
    assert found.class_names == ("green", "red"), "the most certain first"


def test_views_of_all_pictures_share_batches(monkeypatch):
    from sam2_blocks.strategies import detect

    monkeypatch.setattr(detect, "VIEWS_PER_BATCH", 5)
    sizes = []
    pictures = [picture((5, 5, 9, 9)), picture((250, 150, 260, 160))]
    found = detect_in_tiles(
        lambda images: (sizes.append(len(images)), find(images))[1],
        pictures,
        TileSettings(tile_px=150, overlap=0),
    )
    assert sizes == [5, 5]  # 1 + 2 x 2 views each
    assert [of.boxes_xyxy.tolist() for of in found] == [[[5, 5, 9, 9]], [[250, 150, 260, 160]]]


def test_boxes_outside_the_picture_are_left_out():
    boxes = [[-9, 5, 0, 9], [-9, 5, 1, 9], [300, 5, 310, 9], [5, 200, 9, 210]]
    [found] = detect_in_tiles(lambda images: [found_at((200, 300), boxes)], [picture()])
    assert found.boxes_xyxy.tolist() == [[-9, 5, 1, 9]]


def test_tiles_cover_the_picture():
    covered = np.zeros((217, 331), int)
    whole, *tiles = tile_places((217, 331), TileSettings(tile_px=100, overlap=0.3))
    assert whole[:4] == (0, 0, 331, 217)
    for tile in tiles:
        covered[tile.y_start : tile.y_stop, tile.x_start : tile.x_stop] += 1
        assert (tile.x_stop - tile.x_start, tile.y_stop - tile.y_start) == (100, 100)
    assert covered.min() == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TileSettings(tile_px=1), "tile_px wants 2 or more, or 0 for no tiles, got 1"),
        (TileSettings(tile_px=-4), "tile_px wants 2 or more, or 0 for no tiles, got -4"),
        (TileSettings(tile_px=9, overlap=1), "overlap wants a share from 0 to below 1, got 1"),
    ],
)
def test_settings_that_make_no_tiles_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tile_places((20, 20), settings)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2]),
        ({"max_count": 2}, [0, 2]),
        ({"max_count": 0}, []),
        ({"classes": ["red"]}, [0, 2]),
        ({"classes": ["red"], "max_count": 1}, [2]),
        ({"classes": []}, []),
    ],
)
def test_objects_are_chosen_in_their_order(options, kept):
    found = found_at((9, 9), [[0, 0, 1, 1]] * 3, [0.5, 0.2, 0.9], [0, 1, 0])
    expected = found.select(np.array(kept, int))
    chosen = choose_objects(found, **options)
    assert chosen.confidence.tolist() == expected.confidence.tolist()
    assert chosen.class_names == expected.class_names


def test_overlapping_boxes_of_one_class_leave_the_most_certain():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]]
    found = found_at((20, 20), boxes, [0.5, 0.9, 0.4], [0, 0, 1])
    assert suppress_objects(found, 0.5).confidence.tolist() == pytest.approx([0.9, 0.4])
    assert suppress_objects(found, 1.0) is found


def test_a_class_that_the_model_does_not_know_is_named():
    check_classes(None, NAMES.tolist(), "mine")
    check_classes(["red"], NAMES.tolist(), "mine")
    with pytest.raises(ValueError, match=r"'mine' knows no class 'gren'. Did you mean 'green'"):
        check_classes(["red", "gren"], NAMES.tolist(), "mine")


def test_too_many_tiles_are_refused():
    with pytest.raises(
        ValueError, match=r"tile_px = 4 makes 10000 tiles of a picture of 400 x 400"
    ):
        tile_places((400, 400), TileSettings(tile_px=4, overlap=0))

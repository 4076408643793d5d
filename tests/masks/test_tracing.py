import numpy as np

from sam2_blocks.masks.rle import mask_to_rle, rle_to_spans
from sam2_blocks.masks.tracing import outermost, trace_parts


def parts_of(*rows):
    mask = np.array([[pixel == "#" for pixel in row] for row in rows])
    return trace_parts(rle_to_spans(mask_to_rle(mask)))


def test_nothing_has_no_parts():
    assert parts_of("...") == []


def test_a_part_has_its_holes():
    [part] = parts_of("####", "#.##", "##.#", "####")
    assert len(part.outer) == 4
    assert sorted(hole.min(axis=0).tolist() for hole in part.holes) == [[1, 1], [2, 2]]


def test_parts_inside_others_are_not_outermost():
    parts = parts_of("#####", "#...#", "#.#.#", "#...#", "#####")
    assert len(parts) == 2
    assert [len(part.holes) for part in outermost(parts)] == [1]

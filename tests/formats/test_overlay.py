from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.formats.overlay import Label, draw_labels, draw_prompts
from sam2_blocks.prompts import parse_prompts

BLACK = np.zeros((100, 200, 3), np.uint8)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def drawn(*labels, pixels=BLACK, size_px=10):
    return draw_labels(pixels, labels, size_px=size_px)


def test_a_label_is_above_its_box_and_inside_the_picture():
    pixels = drawn(Label("cup", (50, 60, 120, 90), RED))
    rows, columns = np.nonzero(pixels.any(axis=2))
    assert 40 < rows.min() < rows.max() < 60
    assert columns.min() == 50
    assert not BLACK.any()


@pytest.mark.parametrize("box", [(-20, -20, 10, 10), (190, 90, 230, 130), (0, 0, 200, 100)])
def test_a_label_of_a_box_at_the_edge_is_whole(box):
    inside = drawn(Label("cup", (50, 60, 120, 90), RED)).any(axis=2).sum()
    assert drawn(Label("cup", box, RED)).any(axis=2).sum() == inside


def test_two_labels_of_one_box_are_beside_each_other():
    one = Label("cup", (50, 60, 120, 90), RED)
    both = drawn(one, one._replace(colour=BLUE))
    alone = drawn(one)
    assert np.array_equal(both[alone.any(axis=2)], alone[alone.any(axis=2)])
    assert (both[..., 2] > both[..., 0]).any()


def test_what_would_cover_too_much_is_left_out():
    label = Label("a long name of a class", (0, 0, 200, 100), RED)
    assert not drawn(label, size_px=60).any()


@pytest.mark.parametrize("text", ["cup\nof tea", "cup\r\nof tea", "cup\u2028of  tea"])
def test_a_label_is_one_line(text):
    box = (50, 60, 120, 90)
    assert np.array_equal(drawn(Label(text, box, RED)), drawn(Label("cup of tea", box, RED)))


def test_a_long_label_is_shortened_and_can_be_told_apart():
    first, second = (
        drawn(Label(name * 20, (0, 60, 120, 90), RED)) for name in ("teacup ", "saucer ")
    )
    assert 60 < np.nonzero(first.any(axis=(0, 2)))[0].max() < 100
    assert not np.array_equal(first, second)


def test_letters_are_readable_on_any_colour():
    bright = drawn(Label("cup", (50, 60, 120, 90), (255, 255, 0)))
    assert bright[45:60, 50:80].min(axis=(0, 1))[0] < 60


def test_clicks_and_boxes_have_colours():
    clicks = {"point_coords": [[20, 30], [60, 30]], "point_labels": [1, 0]}
    prompts = parse_prompts([clicks, {"box_xyxy": [100, 20, 150, 80]}])
    pixels = draw_prompts(BLACK, prompts, size_px=4)
    assert [int(pixels[30, x].argmax()) for x in (20, 60)] == [1, 0]
    assert pixels[20, 120].argmax() == 1
    assert not pixels[50, 120].any()

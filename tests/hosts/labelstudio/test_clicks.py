from __future__ import annotations

import pytest

from sam2_blocks.hosts.labelstudio.clicks import read_clicks
from sam2_blocks.service.errors import RequestError
from tests.hosts.labelstudio.projects import HEIGHT, WIDTH, click, rectangle, region


def boxes_of(clicks):
    return [prompt.box and [round(x, 3) for x in prompt.box.to_xyxy()] for _, prompt in clicks]


def points_of(clicks):
    return [
        [(round(p.x, 3), round(p.y, 3), p.positive) for p in prompt.points or []]
        for _, prompt in clicks
    ]


def test_clicks_of_a_label_are_one_object():
    read = read_clicks([click(3, 4), click(5, 6, positive=False), click(20, 9, "plate")])
    assert (read.picture, read.image_hw) == ("image", (HEIGHT, WIDTH))
    assert [labels for labels, _ in read.objects] == [("cup",), ("plate",)]
    assert points_of(read.objects) == [[(3, 4, True), (5, 6, False)], [(20, 9, True)]]


def test_each_rectangle_is_an_object_with_the_clicks_nearest_to_it():
    read = read_clicks([rectangle(2, 3, 12, 15), rectangle(14, 5, 30, 20), click(29, 21)])
    assert boxes_of(read.objects) == [[2, 3, 12, 15], [14, 5, 30, 20]]
    assert points_of(read.objects) == [[], [(29, 21, True)]]


def test_the_only_rectangle_takes_every_click_of_its_label():
    read = read_clicks([click(1, 1, positive=False), rectangle(14, 5, 30, 20)])
    assert points_of(read.objects) == [[(1, 1, False)]]


@pytest.mark.parametrize(
    ("degrees", "box"),
    [
        (90, [8, 5, 14, 15]),  # ten wide, six high, turned about (14, 5)
        (180, [4, -1, 14, 5]),
        (270, [14, -5, 20, 5]),
        (45, [14 - 6 / 2**0.5, 5, 14 + 10 / 2**0.5, 5 + 16 / 2**0.5]),
    ],
)
def test_a_turned_rectangle_is_the_upright_box_around_it(degrees, box):
    read = read_clicks([rectangle(14, 5, 24, 11, rotation=degrees)])
    assert boxes_of(read.objects)[0] == pytest.approx(box, abs=1e-3)


def test_plain_tags_have_their_label_in_a_result_of_its_own():
    point = region("keypoint", {"x": 3, "y": 4}, id="a")
    said = region("labels", {}, id="a", said={"labels": ["cup", "blue"]})
    [(labels, prompt)] = read_clicks([point, said]).objects
    assert labels == ("cup", "blue")
    assert prompt.points[0].positive


def test_a_click_on_the_border_is_on_the_last_pixel():
    read = read_clicks([click(WIDTH, HEIGHT), click(0, 0)])
    assert points_of(read.objects) == [[(WIDTH - 1, HEIGHT - 1, True), (0, 0, True)]]


def test_a_rectangle_without_a_size_is_a_speck():
    [[x0, y0, x1, y1]] = boxes_of(read_clicks([rectangle(5, 5, 5, 5)]).objects)
    assert x1 > x0
    assert y1 > y0


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ([], "nothing to segment: click on an object"),
        ([region("brushlabels", {})], "nothing to segment"),
        ([click(3, 4, positive=False)], "needs one on it. Click on the object first"),
        ([click(3, 4, image_rotation=90)], "the picture is turned. Turn it back"),
        ([click(3, 4, original_width=0)], "a keypoint is malformed.*0 x 24 pixels"),
        ([region("rectangle", {"x": 1, "y": 2})], "a rectangle is malformed: KeyError..width"),
        ([click(3, 4, original_width=float("inf"))], "a keypoint is malformed"),
        ([click(float("nan"), 4)], "a keypoint is malformed"),
        ([{**click(3, 4), "value": None}], "a keypoint is malformed"),
    ],
)
def test_what_cannot_be_segmented(drawn, message):
    with pytest.raises(RequestError, match=message):
        read_clicks(drawn)

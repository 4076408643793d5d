from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.labelme_prompts import LINE_CLICKS, labelme_objects

HW = (40, 60)


def shape(sort, points, label="cup", group=None, **more):
    return {"shape_type": sort, "points": points, "label": label, "group_id": group, **more}


def objects(*shapes):
    return labelme_objects({"shapes": list(shapes)}, HW)


def png(values):
    file = io.BytesIO()
    Pil.fromarray(values).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_each_point_is_an_object_of_its_own():
    first, second = objects(shape("point", [[3, 4]]), shape("point", [[30.5, 8]]))
    assert first.points == [((3.0, 4.0), 1)]
    assert second.points == [((30.5, 8.0), 1)]
    assert first.box_xyxy is None
    assert first.mask is None


def test_shapes_of_one_group_are_one_object():
    [one] = objects(
        shape("rectangle", [[20, 30], [5, 6]], group=2),
        shape("point", [[9, 9]], group=2),
        shape("point", [[6, 29]], label="Background", group=2),
    )
    assert one.box_xyxy == (5, 6, 20, 30)
    assert one.points == [((9.0, 9.0), 1), ((6.0, 29.0), 0)]


def test_a_line_is_clicks_at_equal_distances():
    [line, bent] = objects(
        shape("line", [[0, 0], [8, 0]]), shape("linestrip", [[0, 0], [4, 0], [4, 4]])
    )
    assert [xy for xy, _ in line.points] == [(0, 0), (2, 0), (4, 0), (6, 0), (8, 0)]
    assert [xy for xy, _ in bent.points] == [(0, 0), (2, 0), (4, 0), (4, 2), (4, 4)]
    assert len(line.points) == LINE_CLICKS


def test_a_line_without_length_is_one_click():
    [one] = objects(shape("line", [[3, 3], [3, 3]]))
    assert one.points == [((3.0, 3.0), 1)]


def test_outlines_and_bitmaps_are_masks():
    bitmap = np.zeros((5, 7), np.uint8)
    bitmap[1:4, 2:6] = 255
    outline, drawn = objects(
        shape("polygon", [[2, 3], [12, 3], [12, 9], [2, 9]]),
        shape("mask", [[50, 36], [56, 40]], mask=png(bitmap)),
    )
    assert outline.mask.sum() == 60
    assert outline.mask[3:9, 2:12].all()
    # The bitmap's upper left pixel is at its first point; what is below the picture is cut off.
    assert np.argwhere(drawn.mask).min(axis=0).tolist() == [37, 52]
    assert np.argwhere(drawn.mask).max(axis=0).tolist() == [39, 55]


def test_a_circle_is_its_box():
    [one] = objects(shape("circle", [[20, 20], [23, 24]]))
    assert one.box_xyxy == (15, 15, 25, 25)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("point", [[1, 2]], label="background"), "says only what an object is not"),
        (shape("rectangle", [[1, 2], [3, 4]], label="negative"), "only points and lines can be"),
        (shape("cube", [[1, 2]]), "shape_type 'cube' is none of Labelme's"),
        (shape("point", []), "a point wants points, got none"),
        (shape("point", [["x", 2]]), "could not convert"),
        (shape("mask", [[1, 2], [3, 4]], mask="?"), "its mask is no PNG in base64"),
        (shape("mask", [[1, 2], [3, 4]], mask="aGVsbG8="), "its mask is no PNG in base64"),
        ({"label": "cup"}, "there is no 'points'"),
        ("cup", "wants a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_the_shape(wrong, message):
    with pytest.raises(ValueError, match=f"shape 1.*{message}"):
        objects(shape("point", [[3, 4]]), wrong)

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.hosts.cvat.shapes import rle_to_shape
from sam2_blocks.hosts.cvat.tracking import create
from sam2_blocks.masks.rle import mask_to_rle

pytestmark = pytest.mark.usefixtures("sdk")

RECTANGLE = SimpleNamespace(type="rectangle", points=[4.0, 3.0, 16.0, 15.0])


def test_shapes_of_three_kinds_are_followed(resources):
    spec = create("fake", resources=resources).spec
    assert spec.supported_shape_types == {"mask", "polygon", "rectangle"}


@pytest.mark.parametrize("kind", ["mask", "polygon", "rectangle"])
def test_what_does_not_move_stays_as_it_is(frame, resources, kind):
    pixels = np.zeros((24, 32), bool)
    pixels[3:15, 4:16] = True
    points = rle_to_shape(mask_to_rle(pixels), kind)
    function = create("fake", resources=resources)
    first = function.preprocess_image(None, frame)
    state = function.init_tracking_state(None, first, SimpleNamespace(type=kind, points=points))
    found = function.track(None, function.preprocess_image(None, frame), state)
    assert (found.type, found.points) == (kind, points)


def test_an_object_that_is_not_seen_is_no_shape_until_it_is_back(frame, resources):
    function = create("fake", resources=resources)
    light = function.preprocess_image(None, frame)
    dark = function.preprocess_image(None, Pil.new("RGB", frame.size))
    state = function.init_tracking_state(None, light, RECTANGLE)
    assert function.track(None, dark, state) is None
    assert function.track(None, light, state).points == RECTANGLE.points


def test_shapes_are_followed_apart(frame, resources):
    function = create("fake", resources=resources)
    image = function.preprocess_image(None, frame)
    other = SimpleNamespace(type="rectangle", points=[20.0, 5.0, 30.0, 20.0])
    states = [function.init_tracking_state(None, image, one) for one in (RECTANGLE, other)]
    found = [function.track(None, image, state).points for state in reversed(states)]
    assert found == [other.points, RECTANGLE.points]


def square(x):
    """A bright square on a dark ground."""
    pixels = np.full((96, 128, 3), 30, np.uint8)
    pixels[30:60, x : x + 30] = (230, 180, 40)
    return Pil.fromarray(pixels)


def test_a_model_follows_what_moves(nano_resources):
    function = create("nano", device="cpu", resources=nano_resources)
    shape = SimpleNamespace(type="rectangle", points=[10.0, 30.0, 40.0, 60.0])
    state = function.init_tracking_state(None, function.preprocess_image(None, square(10)), shape)
    for x in (16, 22, 28):
        frame = function.preprocess_image(None, square(x))
        found = np.array(function.track(None, frame, state).points)
        assert np.abs(found - [x, 30, x + 30, 60]).max() <= 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (SimpleNamespace(type="points", points=[1.0, 2.0]), "got 'points'"),
        (SimpleNamespace(type="rectangle", points=[100.0, 100, 120, 120]), "wholly outside"),
    ],
)
def test_shapes_that_mean_nothing(frame, nano_resources, shape, message):
    function = create("nano", device="cpu", resources=nano_resources)
    with pytest.raises(ValueError, match=message):
        function.init_tracking_state(None, function.preprocess_image(None, frame), shape)

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.images import MAX_PIXELS
from sam2_blocks.runs.sources.values import Values, is_picture
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Image
from tests.conftest import PICTURES, ROOT


@pytest.fixture
def asked(plugins):
    pipeline = plugins.load_pipeline(ROOT / "examples" / "quickstart.yaml")
    return RunRequest(pipeline, plugins, max_pixels=MAX_PIXELS)


def read(value):
    return value() if callable(value) else value


def test_pictures_of_every_form_have_a_name_and_pixels(asked):
    pixels = np.full((4, 6, 3), 7, np.uint8)
    values = [
        PICTURES / "coffee.jpg",
        Image(pixels, "named"),
        Image(pixels),
        pixels,
        Pil.fromarray(pixels),
    ]
    assert all(map(is_picture, values))
    items = list(Values(values, asked).items())
    assert [item.id for item in items] == [
        (PICTURES / "coffee.jpg").as_posix(), "named", "2", "3", "4",
    ]  # fmt: skip
    found = [read(item.inputs["image"]) for item in items]
    assert found[0].hw == (400, 600)
    assert all((image.pixels == 7).all() and image.hw == (4, 6) for image in found[1:])


def test_items_and_mappings_are_taken_as_they_are(asked):
    item = Item("mine", {"image": sample_image()})
    taken, mapped = Values([item, item.inputs], asked).items()
    assert taken is item
    assert (mapped.id, mapped.inputs) == ("1", item.inputs)


def test_values_are_taken_when_their_turn_comes(asked):
    drawn = []

    def draw():
        for number in range(3):
            drawn.append(number)
            yield sample_image(str(number))

    source = Values(draw(), asked)
    assert source.total is None
    next(source.items())
    assert drawn == [0]


def test_what_is_no_picture_is_named(asked):
    assert not is_picture(3)
    with pytest.raises(UsageError, match=r"input 1: wants a path, an Image.*got int"):
        list(Values([sample_image(), 3], asked).items())

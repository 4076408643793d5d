from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.opening import Chain, open_source
from sam2_blocks.testing import sample_image
from tests.conftest import PICTURES, ROOT


@pytest.fixture
def asked(plugins):
    pipeline = plugins.load_pipeline(ROOT / "examples" / "quickstart.yaml")
    return RunRequest(pipeline, plugins, max_pixels=10**8)


def ids(source):
    return [item.id for item in source.items()]


def test_a_path_a_picture_and_a_list_of_either_are_inputs(asked):
    coffee = PICTURES / "coffee.jpg"
    pixels = np.zeros((4, 5, 3), np.uint8)
    assert ids(open_source(str(coffee), asked)) == ["coffee.jpg"]
    assert ids(open_source(coffee, asked)) == ["coffee.jpg"]
    assert ids(open_source([sample_image("x.png"), pixels], asked)) == ["x.png", "1"]
    assert open_source(pixels, asked).alone
    assert not open_source([pixels], asked).alone


def test_a_source_is_taken_as_it_is(asked):
    source = open_source(PICTURES / "coffee.jpg", asked)
    assert open_source(source, asked) is source


def test_what_is_no_input_is_named(asked):
    with pytest.raises(UsageError, match=r"wants paths, pictures, items, or an iterable.*got int"):
        open_source(3, asked)


def test_sources_follow_each_other(asked):
    one = open_source([sample_image("a"), sample_image("b")], asked)
    other = open_source([sample_image("c")], asked)
    both = Chain([one, other])
    assert ids(both) == ["a", "b", "c"]
    assert both.total == 3
    assert both.identity is None  # values in memory cannot be found again
    assert Chain([one, open_source(iter([sample_image("d")]), asked)]).total is None

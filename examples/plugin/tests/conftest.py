from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from sam2_blocks import load_plugins, read_image, testing

PICTURES = Path(__file__).parents[2] / "pictures"


@pytest.fixture(scope="session")
def plugins():
    """Every installed plugin, this one among them; a broken one fails the tests."""
    return load_plugins(strict=True)


@pytest.fixture(scope="session")
def run_block(plugins):
    """Run one block on one item: ``run_block(block_id, {input: value}, param=value)``."""
    return partial(testing.run_block, plugins=plugins)


@pytest.fixture(scope="session")
def astronaut():
    return read_image(PICTURES / "astronaut.jpg")

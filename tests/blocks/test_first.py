from __future__ import annotations

from types import SimpleNamespace

from sam2_blocks.blocks.first import First


def test_the_first_of_those_that_are_there_is_taken():
    """Which are there is the runner's business: tests/engine/test_flow.py."""
    items = [SimpleNamespace(values=[1, 2]), SimpleNamespace(values=["b"])]
    assert First(None).run(items) == [{"value": 1}, {"value": "b"}]

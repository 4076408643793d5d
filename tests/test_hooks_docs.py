"""The examples of ``docs/hooks.md`` and ``docs/executors.md`` run as they stand."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import pytest

from sam2_blocks import load_plugins
from sam2_blocks.engine import hookspecs
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image
from tests.conftest import ROOT

HOOKS = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## (.*?)\n.*?```python\n(.*?)```", HOOKS, re.M | re.S))


def test_every_hook_has_an_example():
    hooks = {name for name, found in vars(hookspecs).items() if hasattr(found, "sam2_blocks_spec")}
    assert hooks == {name for title in EXAMPLES for name in title.split(", ")}


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_of_a_hook_runs(title):
    exec(EXAMPLES[title], {"__name__": "example"})


def test_the_executor_that_the_docs_write_segments():
    page = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    module = ModuleType("colour_family")
    exec(code, vars(module))
    plugins = load_plugins(points=[])
    plugins.register(module, "colour")
    pixels = np.full((100, 120, 3), 10, np.uint8)
    pixels[30:70, 40:90] = (200, 60, 20)
    result = run_block(
        "sam2/segment@v1",
        {"image": Image(pixels, "red"), "prompts": [{"box_xyxy": [30, 20, 100, 80]}]},
        plugins=plugins,
        resources=plugins.resources(),
        model="colour:plain",
    )
    assert not result.errors
    [mask] = np.asarray(result.outputs["predictions"].mask)
    expected = pixels[..., 0] > 100
    assert (mask & expected).sum() / (mask | expected).sum() > 0.9

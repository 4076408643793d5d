from __future__ import annotations

from pathlib import Path

import pytest

from sam2_blocks import Item, Runner, load_pipeline, load_plugins
from sam2_blocks.plugins import Plugins
from sam2_blocks.resources import Resources
from sam2_blocks.testing import FakeExecutor

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "examples" / "pictures"


@pytest.fixture
def plugins() -> Plugins:
    """The built-in blocks alone, in a plugin manager of their own."""
    return load_plugins(strict=True, points=[])


@pytest.fixture
def fake_resources() -> Resources:
    """Executors without a model."""
    return Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))


@pytest.fixture
def run_one_step(plugins, fake_resources):
    """Run one block on one item: ``run_one_step(block_id, {input: value}, {param: value})``."""

    def run(block_id, inputs, params=None, resources=None):
        manifest = plugins.manifests[block_id]
        document = {
            "pipeline_version": 1,
            "inputs": {name: {"kind": list(manifest.inputs[name].kinds)} for name in inputs},
            "steps": {
                "step": {
                    "use": block_id,
                    "with": {**{name: f"$inputs.{name}" for name in inputs}, **(params or {})},
                }
            },
            "outputs": {name: f"$steps.step.{name}" for name in manifest.outputs},
        }
        pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
        with Runner(pipeline, plugins, resources=resources or fake_resources) as runner:
            [result] = runner.run([Item("item", inputs)])
        return result

    return run

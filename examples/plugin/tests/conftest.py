from __future__ import annotations

from pathlib import Path

import pytest

from sam2_blocks import Item, Runner, load_pipeline, load_plugins, read_image

PICTURES = Path(__file__).parents[2] / "pictures"


@pytest.fixture(scope="session")
def plugins():
    """Every installed plugin, this one among them; a broken one fails the tests."""
    return load_plugins(strict=True)


@pytest.fixture(scope="session")
def astronaut():
    return read_image(PICTURES / "astronaut.jpg")


@pytest.fixture
def run_block(plugins):
    """Run one block on one item: ``run_block(block_id, {input: value}, param=value)``."""

    def run(block_id, inputs, **params):
        manifest = plugins.manifests[block_id]
        document = {
            "pipeline_version": 1,
            "inputs": {name: {"kind": list(manifest.inputs[name].kinds)} for name in inputs},
            "steps": {
                "step": {
                    "use": block_id,
                    "with": {**{name: f"$inputs.{name}" for name in inputs}, **params},
                }
            },
            "outputs": {name: f"$steps.step.{name}" for name in manifest.outputs},
        }
        pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
        with Runner(pipeline, plugins) as runner:
            [result] = runner.run([Item("item", inputs)])
        return result

    return run

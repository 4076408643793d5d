from __future__ import annotations

from types import SimpleNamespace

import pytest

from sam2_blocks import Item, Runner, load_pipeline
from sam2_blocks.errors import ModelError
from sam2_blocks.language.manifest import load_manifest

MANIFEST = """\
manifest_version: 1
id: test/double@v1
title: Double
summary: Doubles a number.
entry: tests.engine.conftest:Double
inputs: {number: {kind: float, required: true}}
params: {limit: {type: number, default: 100, minimum: 0, description: Largest result.}}
outputs: {number: {kind: float}}
"""


class Double:
    """A block whose misbehaviour is asked for by its input."""

    made = 0
    batches: list[list[float]] = []  # noqa: RUF012
    finished = 0

    def __init__(self, resources):
        Double.made += 1

    def run(self, items):
        Double.batches.append([item.number for item in items])
        if any(item.number == 13 for item in items):
            raise RuntimeError("13 is unlucky")
        if any(item.number == 99 for item in items):
            raise ModelError("no such model")
        return [self.double(item) for item in items]

    def double(self, item):
        special = {7: ValueError("7 is refused"), 8: {"number": "eight"}, 9: {"result": 1}}
        return special.get(item.number, {"number": min(item.number * 2, item.limit)})

    def finish(self):
        Double.finished += 1


@pytest.fixture
def doubling(plugins):
    """Build a pipeline of two doublings: ``run(numbers, **runner_options)``."""
    Double.made = Double.finished = 0
    Double.batches = []
    plugins.manifests["test/double@v1"] = load_manifest(MANIFEST, "double.yaml", plugins.kinds)
    document = {
        "pipeline_version": 1,
        "inputs": {"x": {"kind": "float"}, "limit": {"kind": "float", "default": 100}},
        "steps": {
            "once": {"use": "test/double@v1", "with": {"number": "$inputs.x"}},
            "twice": {
                "use": "test/double@v1",
                "with": {"number": "$steps.once.number", "limit": "$inputs.limit"},
            },
        },
        "outputs": {"two": "$steps.once.number", "four": "$steps.twice.number"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)

    def run(numbers, **options):
        items = [Item(str(i), {"x": number}) for i, number in enumerate(numbers)]
        with Runner(pipeline, plugins, **options) as runner:
            return list(runner.run(items))

    return SimpleNamespace(run=run, pipeline=pipeline, plugins=plugins)

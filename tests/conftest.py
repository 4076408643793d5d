from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from sam2_blocks import load_pipeline, load_plugins
from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.testing import run_block

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "examples" / "pictures"
settings.register_profile("busy cores", deadline=None)  # how long one example takes says nothing
settings.load_profile("busy cores")

MOST_PROCESSES = 4
"""Each holds torch and models: a GB of memory."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spread the whole suite over the cores; a part of it, or with ``-n 0`` all, runs right here.

    Each process begins with a stretch of the suite, so that the tests of a file share what they
    make; who is done first takes over from the others.
    """
    if hasattr(config, "workerinput"):  # one of those processes: it would start more
        return
    options = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    whole = whole and not (options.keyword or options.markexpr)
    asked = getattr(options, "numprocesses", 0)  # 0: pytest-xdist is not installed
    if asked is None and whole and not options.usepdb:
        options.numprocesses, options.maxprocesses = "auto", MOST_PROCESSES
        options.dist = "worksteal"
    if getattr(options, "numprocesses", 0):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # who waits leaves cores to others


@pytest.fixture
def plugins() -> Plugins:
    """The built-in blocks alone, in a plugin manager of their own."""
    return load_plugins(strict=True, points=[])


@pytest.fixture
def one_thread():
    """One thread of torch: tensors that are small only make threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def torchvision_operators():
    """A torchvision that can be imported, or what makes it one."""
    from tests.tiny_detectors import define_torchvision_operators

    return define_torchvision_operators()


@pytest.fixture(scope="session")
def tiny_detector(torchvision_operators, tmp_path_factory):
    """Folder of a seeded detector of the transformers library: ``tiny_detector("rt_detr_v2")``."""
    pytest.importorskip("transformers")
    from tests.tiny_detectors import save_tiny

    root = tmp_path_factory.mktemp("detectors")
    made = {}

    def folder(name):
        if name not in made:
            made[name] = save_tiny(name, root / name)
        return made[name]

    return folder


@pytest.fixture
def run_one_step(plugins):
    """Run a built-in block on one item: ``run_one_step(block_id, {input: value}, {param: …})``."""

    def run(block_id, inputs, params=None):
        return run_block(block_id, inputs, plugins=plugins, **(params or {}))

    return run


@pytest.fixture
def export_pipeline(plugins):
    """Steps that each export ``found`` of ``image``: ``make(output, step=(block, params))``."""

    def make(output, **steps):
        wires = {"image": "$inputs.image", "predictions": "$inputs.found"}
        document = {
            "pipeline_version": 1,
            "inputs": {
                "image": {"kind": "image"},
                "found": {"kind": "rle_instance_segmentation_prediction"},
            },
            "steps": {
                name: {"use": block, "with": {**wires, **params}}
                for name, (block, params) in steps.items()
            },
            "outputs": {name: f"$steps.{name}.{output}" for name in steps},
        }
        return load_pipeline(document, plugins.manifests, plugins.kinds)

    return make

from __future__ import annotations

import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts import comfyui
from sam2_blocks.hosts.comfyui.nodes import make_node
from sam2_blocks.hosts.comfyui.values import images_to_tensor
from sam2_blocks.testing import FakeExecutor, sample_image


class CountingExecutor(FakeExecutor):
    """Counts the pictures that it embeds."""

    seen = 0

    def embed(self, images):
        self.seen += len(images)
        return super().embed(images)


@pytest.fixture
def executor():
    return CountingExecutor()


@pytest.fixture
def node(plugins, executor):
    """A node of a built-in block, on the fake executor: ``node("sam2/segment@v1")``."""
    resources = Resources({"sam2": lambda *_, **__: executor})
    return lambda block: make_node(plugins.manifests[block], plugins, resources)()


@pytest.fixture
def segment(node):
    return lambda **given: node("sam2/segment@v1").run(unique_id="7", **given)


@pytest.fixture(scope="module")
def classes():
    return comfyui.load_nodes()[0]


def picture(count=1):
    """An IMAGE of ``count`` times the sample."""
    return images_to_tensor([sample_image()] * count)


def fields_of(node_class):
    types = node_class.INPUT_TYPES()
    return {**types["required"], **types["optional"]}

"""ComfyUI: nodes made from our manifests.

A folder in ``custom_nodes/`` whose ``__init__.py`` says::

    from sam2_blocks.hosts.comfyui import load_nodes
    NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = load_nodes()

``sam2/segment@v1`` is ``sam2_blocks_segment_v1`` there, and any other block, such as
``draw/masks@v1``, is ``sam2_blocks_draw_masks_v1``. Nothing of ComfyUI is imported.

`nodes` makes the class of a node, `sockets` its inputs and outputs, `values` converts what goes
through them, and `boxes` reads boxes of other packs.
"""

from __future__ import annotations

from functools import cache

from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.hosts.bridge import HostReport, Offer, installed_version, make_offer
from sam2_blocks.hosts.comfyui.nodes import NodeClass, make_node
from sam2_blocks.hosts.comfyui.sockets import HOST_FIELDS, node_name


@cache  # one set of executors a process, whoever asks
def load_nodes() -> tuple[dict[str, type[NodeClass]], dict[str, str]]:
    """Make a node of every block that can work in ComfyUI.

    Returns:
        What ComfyUI calls ``NODE_CLASS_MAPPINGS`` and ``NODE_DISPLAY_NAME_MAPPINGS``. All nodes
        share the executors, and with them the embeddings of pictures seen before.
    """
    plugins = load_plugins()
    resources = plugins.resources()
    blocks = find_offer(plugins).blocks
    classes = {name: make_node(block, plugins, resources) for name, block in blocks.items()}
    return classes, {name: block.title for name, block in blocks.items()}


def find_offer(plugins: Plugins) -> Offer:
    """Choose the blocks that can work there.

    Kinds without a form of ComfyUI's own travel as types of ours. Workflows pass from hand to hand,
    inside pictures too, so those who write them are strangers: no files.
    """
    return make_offer(
        plugins, kinds=plugins.kinds, name_of=node_name, trusted=False, reserved=HOST_FIELDS
    )


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it."""
    return HostReport(
        title="ComfyUI",
        installed=installed_version("comfyui", "comfyui-frontend-package"),
        how="copy examples/comfyui to ComfyUI/custom_nodes/sam2_blocks",
        offer=find_offer(plugins),
    )

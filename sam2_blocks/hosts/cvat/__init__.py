"""CVAT (extra ``cvat``): functions for its agents and its command line, one a module.

`detection` runs a pipeline on every frame, `interaction` makes masks of clicks and boxes, and
`tracking` follows shapes, as `shapes` writes them, from frame to frame::

    cvat-cli task auto-annotate 7 --function-module sam2_blocks.hosts.cvat -p pipeline=str:all.yaml

Each has a function `create`, which is what CVAT calls; this package's own makes a detection where
a pipeline is given, and else an interaction.

Source: ``cvat_sdk.auto_annotation.interface`` of cvat-sdk 2.80.
"""

from __future__ import annotations

from typing import Any

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.hosts.bridge import HostReport, Offer, installed_version, offer_in_pipelines

WRITES = "writes files, which a function of CVAT has no place for"


def create(**parameters: Any) -> Any:
    """Make a function for CVAT: a detection where ``pipeline`` is given, else an interaction.

    Args:
        parameters: see `sam2_blocks.hosts.cvat.detection.create` and
            `sam2_blocks.hosts.cvat.interaction.create`.

    Raises:
        Sam2BlocksError: if they are wrong, or cvat-sdk is not installed.
    """
    from sam2_blocks.hosts.cvat import detection, interaction

    made: Any = detection if "pipeline" in parameters else interaction
    return made.create(**parameters)


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it: what pipelines of a detection may use."""
    every = offer_in_pipelines(plugins, trusted=True).blocks
    writers = sorted(block for block, m in every.items() if m.file_access == "write")
    return HostReport(
        title="CVAT",
        installed=installed_version("cvat-sdk"),
        how="cvat-cli … --function-module sam2_blocks.hosts.cvat -p model=str:nano",
        offer=Offer(
            {block: m for block, m in every.items() if block not in writers},
            dict.fromkeys(writers, f"it {WRITES}"),
        ),
    )

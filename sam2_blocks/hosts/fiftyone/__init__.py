"""FiftyOne: a remote source of its model zoo, and its labels of our detections.

The folder ``examples/fiftyone`` is the source: a manifest, and a module that says::

    from sam2_blocks.hosts.fiftyone.zoo import download_model, load_model, resolve_input

`labels` has the way to and from FiftyOne's labels, `zoo` its models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.hosts.bridge import HostReport, installed_version, offer_in_pipelines

if TYPE_CHECKING:
    from sam2_blocks.hosts.fiftyone.labels import to_fiftyone

__all__ = ["report", "to_fiftyone"]


def __getattr__(name: str) -> Any:
    if name != "to_fiftyone":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sam2_blocks.hosts.fiftyone.labels import to_fiftyone

    return to_fiftyone


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it: what pipelines of its models may use."""
    return HostReport(
        title="FiftyOne",
        installed=installed_version("fiftyone"),
        how="copy examples/fiftyone to the folder of its model zoo, sam2_blocks in it",
        offer=offer_in_pipelines(plugins, trusted=True),
    )

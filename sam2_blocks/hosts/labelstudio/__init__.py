"""Label Studio: the service as its ML backend; ``sam2-blocks serve --label-studio``.

What a labeller clicks comes as percentages of the picture and becomes prompts (`clicks`), masks
become regions of the project's own control tags (`config`, `regions`, `brush`), and pictures are
fetched from Label Studio itself (`pictures`). `backend` is the way of one request, `routes` its
addresses. Nothing of Label Studio is imported.
"""

from __future__ import annotations

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.hosts.bridge import HostReport, installed_version, offer_in_pipelines


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it."""
    return HostReport(
        title="Label Studio",
        installed=installed_version("label-studio", "label-studio-sdk"),
        how="sam2-blocks serve --label-studio, and connect http://127.0.0.1:9001 as a model",
        offer=offer_in_pipelines(plugins, trusted=True),
    )

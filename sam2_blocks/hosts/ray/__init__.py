"""Ray (extra ``ray``): whole runs, the service as a deployment, pipelines as a Ray Data stage.

A run in shards, which is ``sam2-blocks run --on ray``: `run_on_ray`.

Serve, with two replicas of one GPU each::

    serve run sam2_blocks.hosts.ray:build_app model=hiera_tiny replicas=2 gpus=1

Data, where columns are named like the pipeline's inputs::

    ds.map_batches(PipelineStage, fn_constructor_args=["pipeline.yaml"], concurrency=2)

Videos, a row a frame, each video on one actor::

    map_videos(ds, "track.yaml", video_column="clip", frame_column="number", concurrency=2)

`launch` starts runs on a `cluster`, each `worker` of which is a process with shards to run; `serve`
is the service, and `data` has the stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazy_loader import attach  # type: ignore[import-untyped]

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.hosts.bridge import HostReport, Offer, installed_version, offer_in_pipelines

if TYPE_CHECKING:
    from sam2_blocks.hosts.ray.data import PipelineStage, VideoStage, map_videos
    from sam2_blocks.hosts.ray.launch import RayOptions, RayRun, run_on_ray
    from sam2_blocks.hosts.ray.serve import ServeOptions, build_app

__all__ = [
    "PipelineStage",
    "RayOptions",
    "RayRun",
    "ServeOptions",
    "VideoStage",
    "build_app",
    "map_videos",
    "report",
    "run_on_ray",
]


def report(plugins: Plugins) -> HostReport:
    """Describe this host without importing it: what pipelines of a stage may use."""
    every = offer_in_pipelines(plugins, trusted=True)
    writers = {b for b, m in every.blocks.items() if m.file_access == "write"}
    reason = "it writes files, which a stage cannot; write the columns that come out"
    return HostReport(
        title="Ray",
        installed=installed_version("ray"),
        how="ds.map_batches(sam2_blocks.hosts.ray.PipelineStage, …)",
        offer=Offer(
            {b: m for b, m in every.blocks.items() if b not in writers},
            dict.fromkeys(sorted(writers), reason),
        ),
    )


__getattr__, __dir__, _ = attach(
    __name__,
    submod_attrs={
        "data": ["PipelineStage", "VideoStage", "map_videos"],
        "launch": ["RayOptions", "RayRun", "run_on_ray"],
        "serve": ["ServeOptions", "build_app"],
    },
)

"""Ray (extra ``ray``): the service as a Ray Serve deployment, pipelines as a Ray Data stage.

Serve, with two replicas of one GPU each::

    serve run sam2_blocks.hosts.ray:build_app model=hiera_tiny replicas=2 gpus=1

Data, where columns are named like the pipeline's inputs::

    ds.map_batches(PipelineStage, fn_constructor_args=["pipeline.yaml"], concurrency=2)
"""

from sam2_blocks.hosts.ray.data import PipelineStage
from sam2_blocks.hosts.ray.serve import ServeOptions, build_app

__all__ = ["PipelineStage", "ServeOptions", "build_app"]

"""For tests, ours and those of plugin authors: a model-free executor and a check of a block.

Neither pytest nor torch is imported.
"""

from __future__ import annotations

from sam2_blocks.kinds import SAMPLE_HW, sample_detections, sample_embedding, sample_image
from sam2_blocks.testing.checks import (
    check_block,
    check_host,
    example_pipeline,
    run_block,
    sample_value,
)
from sam2_blocks.testing.fakes import FakeDetector, FakeExecutor, FakeTrackSession

__all__ = [
    "SAMPLE_HW",
    "FakeDetector",
    "FakeExecutor",
    "FakeTrackSession",
    "check_block",
    "check_host",
    "example_pipeline",
    "run_block",
    "sample_detections",
    "sample_embedding",
    "sample_image",
    "sample_value",
]

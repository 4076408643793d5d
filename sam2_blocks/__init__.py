"""Workflow blocks for Segment Anything 2: pipelines in YAML, from boxes and points to exact masks.

What is listed in ``__all__`` is public, and so is `sam2_blocks.testing`; everything else may
change. Importing this package imports neither torch nor any host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam2_blocks.engine.hookspecs import hookimpl
from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Block, ErrorRecord, Item, ItemResult, Runner
from sam2_blocks.errors import (
    ImageError,
    ManifestError,
    MissingExtraError,
    ModelError,
    PipelineError,
    PluginError,
    Sam2BlocksError,
    StepError,
)
from sam2_blocks.formats.images import read_image
from sam2_blocks.kinds import Kind
from sam2_blocks.language.pipeline import load_pipeline
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.values import (
    AutomaticMasks,
    AutomaticSettings,
    CropSettings,
    Embedding,
    Image,
    MaskPrediction,
    Prompt,
    PromptSet,
    Rle,
)

if TYPE_CHECKING:
    from sam2_blocks.executor import load as load_executor
    from sam2_blocks.formats.rows import rows_to_detections
    from sam2_blocks.masks.detections import to_detections
    from sam2_blocks.masks.rle import masks_to_prediction
    from sam2_blocks.prompts import check_prompts
    from sam2_blocks.strategies.crops import generate_masks_in_crops
    from sam2_blocks.strategies.tiles import segment_in_tiles

__version__ = "0.1.0"

__all__ = [
    "AutomaticMasks",
    "AutomaticSettings",
    "Block",
    "CropSettings",
    "Embedding",
    "ErrorRecord",
    "Image",
    "ImageError",
    "Item",
    "ItemResult",
    "Kind",
    "ManifestError",
    "MaskPrediction",
    "MissingExtraError",
    "ModelError",
    "PipelineError",
    "PluginError",
    "Prompt",
    "PromptSet",
    "Resources",
    "Rle",
    "Runner",
    "Sam2BlocksError",
    "StepError",
    "check_prompts",
    "generate_masks",
    "generate_masks_in_crops",
    "hookimpl",
    "load_executor",
    "load_pipeline",
    "load_plugins",
    "masks_to_prediction",
    "read_image",
    "rows_to_detections",
    "segment_in_tiles",
    "to_detections",
]

# Slow to import (torch, supervision), hence only on first use.
_LAZY = {
    "check_prompts": ("sam2_blocks.prompts", "check_prompts"),
    "generate_masks_in_crops": ("sam2_blocks.strategies.crops", "generate_masks_in_crops"),
    "load_executor": ("sam2_blocks.executor", "load"),
    "masks_to_prediction": ("sam2_blocks.masks.rle", "masks_to_prediction"),
    "rows_to_detections": ("sam2_blocks.formats.rows", "rows_to_detections"),
    "segment_in_tiles": ("sam2_blocks.strategies.tiles", "segment_in_tiles"),
    "to_detections": ("sam2_blocks.masks.detections", "to_detections"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)

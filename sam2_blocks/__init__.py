"""Workflow blocks for Segment Anything 2: pipelines in YAML, from boxes and points to exact masks.

What is listed in ``__all__`` is public, and so is `sam2_blocks.testing`; everything else may
change. Importing this package imports neither torch nor any host: each name comes with its first
use, from where ``__init__.pyi`` says, which is the one place that lists them.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

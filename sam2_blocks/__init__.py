"""Workflow blocks for Segment Anything 2."""

__version__ = "0.1.0"

"""Detectors of the ``transformers`` library: of fixed classes, and of what phrases say."""

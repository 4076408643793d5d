from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.values import Image


@pytest.fixture
def pictures():
    """Two of different sizes."""
    rng = np.random.default_rng(0)
    sizes = {"wide": (120, 160), "high": (90, 70)}
    return [
        Image(rng.integers(0, 255, (*hw, 3), dtype=np.uint8), name) for name, hw in sizes.items()
    ]


@pytest.fixture
def load(tiny_detector):
    """Load a seeded model by the path that users take: ``load("rt_detr_v2")``."""
    from sam2_blocks.executor.transformers.loading import load

    return lambda name, **options: load(str(tiny_detector(name)), device="cpu", **options)

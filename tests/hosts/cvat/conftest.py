from __future__ import annotations

import pytest
from PIL import Image as Pil

from sam2_blocks import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import FakeExecutor, sample_image


@pytest.fixture
def sdk():
    """CVAT's own definitions."""
    pytest.importorskip("cvat_sdk", reason="needs the extra cvat")
    import cvat_sdk.auto_annotation

    return cvat_sdk.auto_annotation


@pytest.fixture
def resources():
    return Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))


@pytest.fixture(scope="session")
def nano_resources():
    return load_plugins(points=[]).resources()


@pytest.fixture
def frame():
    """The sample as CVAT hands it over."""
    return Pil.fromarray(sample_image().pixels)

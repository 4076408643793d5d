from __future__ import annotations

import pytest


@pytest.fixture
def labels():
    """FiftyOne's labels, which need no database; its imports warn of each other."""
    return pytest.importorskip(
        "fiftyone.core.labels", reason="needs fiftyone", exc_type=ImportError
    )

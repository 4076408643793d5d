from __future__ import annotations

import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ModelError
from sam2_blocks.testing import FakeExecutor


def test_strangers_name_models_but_not_files():
    resources = Resources({"sam2": FakeExecutor}, local_models=False)
    assert resources.executor("nano").spec.model == "nano"
    for path in ("/srv/secret.pt", "mine.safetensors", "mine.pt/", "mine.pt/."):
        with pytest.raises(ModelError, match=r"is a file, .* SAM2_BLOCKS_LOCAL_MODELS=1"):
            resources.executor(path)
    assert Resources({"sam2": FakeExecutor}).executor("mine.pt").spec.model == "mine.pt"

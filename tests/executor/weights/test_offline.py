from __future__ import annotations

import pytest

from sam2_blocks.executor.weights.offline import is_offline


@pytest.mark.parametrize(("text", "offline"), [("", False), ("0", False), ("1", True)])
def test_a_variable_switches_downloads_off(monkeypatch, text, offline):
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", text)
    assert is_offline() == offline

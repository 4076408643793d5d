from __future__ import annotations

import os

import pytest

from sam2_blocks.cli.options import use_backend
from sam2_blocks.errors import UsageError
from sam2_blocks.executor.backends import BACKEND_VARIABLE


def test_a_backend_is_for_the_whole_process(monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "no such thing")
    use_backend("torch")
    assert os.environ[BACKEND_VARIABLE] == "torch"


def test_what_is_no_backend_here_is_refused(monkeypatch):
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"--backend 'openvin': .* Did you mean 'openvino'\?"):
        use_backend("openvin")
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    with pytest.raises(UsageError, match=r"Run: pip install 'sam2-blocks\[openvino\]'"):
        use_backend("openvino")
    assert BACKEND_VARIABLE not in os.environ

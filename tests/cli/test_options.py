from __future__ import annotations

import os

import pytest

from sam2_blocks.cli.options import WRONG_INPUT, use_backend
from sam2_blocks.errors import UsageError
from sam2_blocks.executor.backends import BACKEND_VARIABLE
from tests.cli.conftest import COFFEE, QUICKSTART


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


def test_a_backend_is_chosen_for_a_run(call, tmp_path, monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "no such thing")
    arguments = ("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    assert call(*arguments, "--backend", "torch")[0] == 0
    assert os.environ[BACKEND_VARIABLE] == "torch"
    code, _, err = call(*arguments, "--backend", "openvin")
    assert code == WRONG_INPUT
    assert "--backend 'openvin': there is no backend 'openvin'. Did you mean 'openvino'?" in err
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    code, _, err = call(*arguments, "--backend", "openvino")
    assert code == WRONG_INPUT
    assert "Run: pip install 'sam2-blocks[openvino]'" in err.replace("\n", " ")

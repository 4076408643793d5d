from __future__ import annotations

import importlib.util

import pytest

from sam2_blocks.executor import backends
from sam2_blocks.executor.backends import BACKENDS, find_backend_problem, has_openvino


def test_installed_backends_have_no_problem(monkeypatch):
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    assert [find_backend_problem(name) for name in BACKENDS] == ["", "", ""]


def test_a_missing_backend_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not has_openvino()
    problem = find_backend_problem("openvino")
    assert "not installed. Run: pip install 'sam2-blocks[openvino]'" in problem
    assert find_backend_problem("auto") == find_backend_problem("torch") == ""


@pytest.mark.parametrize("name", ["openvin", "openvino2"])
def test_a_misspelt_backend_is_named(name):
    assert "Did you mean 'openvino'?" in find_backend_problem(name)


def test_the_environment_says_what_auto_is(monkeypatch):
    monkeypatch.delenv(backends.BACKEND_VARIABLE)
    assert backends.default_backend() == "auto"
    monkeypatch.setenv(backends.BACKEND_VARIABLE, "openvino")
    assert backends.default_backend() == "openvino"

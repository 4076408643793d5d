from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from sam2_blocks.executor import backends
from sam2_blocks.executor.backends import BACKENDS, find_backend_problem, has_openvino
from tests.conftest import ROOT


def test_installed_backends_have_no_problem(monkeypatch):
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    assert [find_backend_problem(name) for name in BACKENDS] == ["", "", ""]


def test_a_missing_backend_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not has_openvino()
    problem = find_backend_problem("openvino")
    assert "not installed. Run: pip install 'sam2-blocks[openvino]'" in problem
    assert find_backend_problem("auto") == find_backend_problem("torch") == ""


def test_a_folder_that_an_uninstallation_left_is_no_openvino(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    assert not has_openvino()


@pytest.mark.parametrize("version", ["2022.3.1", "2026.3.0"])
def test_an_openvino_that_is_too_old_is_named_with_what_to_do(monkeypatch, version):
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(backends, "version_of", lambda name: version)
    assert find_backend_problem("openvino") == (
        f"backend 'openvino' needs OpenVINO 2026.4 or later, and {version} is installed. Run: pip "
        "install --upgrade 'sam2-blocks[openvino]', or use backend 'torch'."
    )


@pytest.mark.parametrize("version", ["2026.4.0", "2026.10.0", "2027.0.0.dev1", "", "custom"])
def test_an_openvino_that_is_new_or_of_unknown_age_is_tried(monkeypatch, version):
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(backends, "version_of", lambda name: version)
    assert find_backend_problem("openvino") == ""


def test_the_extra_asks_for_the_oldest_that_is_not_refused():
    asked = f"openvino>={'.'.join(map(str, backends.OLDEST_OPENVINO))}"
    assert f'openvino = ["{asked}"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", ["openvin", "openvino2"])
def test_a_misspelt_backend_is_named(name):
    assert "Did you mean 'openvino'?" in find_backend_problem(name)


def test_the_environment_says_what_auto_is(monkeypatch):
    monkeypatch.delenv(backends.BACKEND_VARIABLE)
    assert backends.default_backend() == "auto"
    monkeypatch.setenv(backends.BACKEND_VARIABLE, "openvino")
    assert backends.default_backend() == "openvino"

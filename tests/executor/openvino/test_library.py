from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor import backends
from sam2_blocks.executor.openvino import library
from sam2_blocks.executor.openvino.library import openvino


@pytest.fixture(autouse=True)
def forgotten():
    """Import anew in each test."""
    library._import.cache_clear()
    yield
    library._import.cache_clear()


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        openvino()


def test_what_is_too_old_is_not_imported(monkeypatch):
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(backends, "version_of", lambda name: "2024.1.0")
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail("imported"))
    with pytest.raises(MissingExtraError, match=r"2026\.4 or later, and 2024\.1\.0 is installed"):
        openvino()


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(library, "find_backend_problem", lambda name: "")


@pytest.mark.usefixtures("installed")
def test_what_is_broken_is_named_with_the_reason(monkeypatch):
    def fail(name):
        raise ImportError("libtbb.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    message = (
        r"cannot be used: libtbb.so: cannot open shared object file\. Run: pip install --force"
    )
    with pytest.raises(MissingExtraError, match=message):
        openvino()


@pytest.mark.usefixtures("installed")
def test_a_part_of_it_is_not_enough(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", ModuleType)
    with pytest.raises(MissingExtraError, match="cannot be used: it has no 'Core'"):
        openvino()


def test_nothing_is_reported_to_anybody():
    pytest.importorskip("openvino")
    script = (
        "from sam2_blocks.executor.openvino.library import core, openvino\n"
        "import sys; openvino().convert_model; core()\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

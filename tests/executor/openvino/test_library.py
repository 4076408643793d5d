from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor.openvino import library
from sam2_blocks.executor.openvino.library import openvino


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    library._import.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        openvino()
    library._import.cache_clear()


def test_what_is_broken_is_named_with_the_reason(monkeypatch):
    def fail(name):
        raise ImportError("libtbb.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    library._import.cache_clear()
    with pytest.raises(MissingExtraError, match=r"\(libtbb.so: cannot open shared object file\)"):
        openvino()
    library._import.cache_clear()


def test_nothing_is_reported_to_anybody():
    pytest.importorskip("openvino")
    script = (
        "from sam2_blocks.executor.openvino.library import core, openvino\n"
        "import sys; openvino().convert_model; core()\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

from __future__ import annotations

import importlib
import sys

import pytest

from sam2_blocks.executor.imports import hidden


def test_a_hidden_package_looks_absent_and_comes_back():
    before = importlib.import_module("json")
    with hidden("json"), pytest.raises(ImportError):
        importlib.import_module("json")
    assert sys.modules["json"] is before


def test_what_was_not_imported_is_not_afterwards():
    with hidden("no_such_package"):
        pass
    assert "no_such_package" not in sys.modules

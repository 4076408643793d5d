"""Beside a torchvision that works, that does not, and without the library: each in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"


def run(code, tmp_path, **packages):
    """Run code where packages of these names and contents come before the installed ones."""
    for name, content in packages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(content)
    first = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", first + code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


def test_a_torchvision_that_cannot_be_imported_is_done_without(tmp_path, tiny_detector):
    code = f"""
import numpy as np
from sam2_blocks.executor.transformers.loading import load
from sam2_blocks.values import Image
detector = load({str(tiny_detector("rt_detr_v2"))!r}, device="cpu")
print(type(detector._network.processor).__name__)
[found] = detector.detect([Image(np.zeros((40, 50, 3), np.uint8))], threshold=0.0)
print(len(found), sys.modules.get("torchvision"))
try:
    load({str(tiny_detector("rf_detr_seg"))!r}, device="cpu")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run(code, tmp_path, torchvision=BROKEN)
    assert done.returncode == 0, done.stderr
    processor, found, error = done.stdout.strip().splitlines()
    assert processor == "RTDetrImageProcessorPil"
    assert found == "30 None", "and it is not hidden from anybody else"
    assert error.startswith("ModelError could not load")
    assert "it needs torchvision, and torchvision" in error
    assert "RuntimeError: operator torchvision::nms does not exist. Install the build" in error


def test_without_the_library_the_extra_is_named(tmp_path):
    code = """
from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor.transformers.library import transformers
try:
    transformers()
except MissingExtraError as error:
    print(error)
"""
    done = run(code, tmp_path, transformers="raise ImportError('no such thing')")
    assert "pip install 'sam2-blocks[transformers]'" in done.stdout, done.stderr


def test_a_torchvision_that_works_has_no_problem(torchvision_operators):
    pytest.importorskip("transformers")
    from sam2_blocks.executor.transformers.library import torchvision_problem, transformers

    assert torchvision_problem() == ""
    assert transformers().is_torchvision_available()

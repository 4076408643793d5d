from __future__ import annotations

import subprocess
import sys

from sam2_blocks.cli.late import load_plugins


def test_the_program_is_there_before_the_engine():
    """`--help` and a misspelt command need neither the engine nor what it imports."""
    heavy = ["sam2_blocks.engine", "sam2_blocks.language", "sam2_blocks.runs", "supervision"]
    code = f"import sys, sam2_blocks.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_loads_what_the_engine_loads(monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    assert "sam2/segment@v1" in load_plugins(strict=True).manifests


def test_what_supervision_seldom_calls_is_imported_when_it_is_called():
    code = """
import sys
import numpy as np
from sam2_blocks.cli.late import SELDOM_CALLED, import_supervision
import_supervision()
assert not [name for name in sys.modules if name.partition(".")[0] in ("scipy", "tqdm")]
import supervision as sv
boxes = np.array([[0.0, 0, 4, 4]])
trace = sv.TraceAnnotator(smooth=True)
for shift in range(6):
    at = boxes + shift * (shift % 3 + 1)
    found = sv.Detections(at, class_id=np.array([0]), tracker_id=np.array([1]))
    trace.annotate(np.zeros((64, 64, 3), np.uint8), found)
assert "scipy.interpolate" in sys.modules
from supervision.dataset import utils
assert utils.cKDTree(np.zeros((2, 2))).n == 2
assert list(utils.tqdm([1, 2], disable=True)) == [1, 2]
for name, attributes in SELDOM_CALLED.items():
    module = __import__(name, fromlist=attributes)
    assert all(type(getattr(module, one)).__name__ != "_Later" for one in attributes)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

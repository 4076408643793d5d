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

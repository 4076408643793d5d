"""Whatever happens to a run, one that goes on with it leaves what a fresh run would have left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_folders_with_a_past_are_like_new_ones():
    command = [sys.executable, "-m", "benchmarks.resume_histories", "--seed", "28", "--count", "4"]
    lived = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert lived.returncode == 0, lived.stdout + lived.stderr
    assert "4 histories, 0 unlike a fresh run" in lived.stdout

"""Whatever happens to a run, one that goes on with it leaves what a fresh run would have left."""

from __future__ import annotations

import os

import pytest

from benchmarks.resume_histories import live


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [6, 12, 29])
def test_a_folder_with_a_past_is_like_a_new_one(tmp_path, seed):
    assert live(seed, tmp_path, whole_s=0.6).differing == []

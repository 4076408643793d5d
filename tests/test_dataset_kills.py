"""A smaller version of `benchmarks.dataset_kills`; the large one is run by hand."""

from __future__ import annotations

import signal

import pytest

from benchmarks.dataset_kills import Place, compare, run_shards


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="wants a system that kills")
def test_shards_that_are_killed_at_random_are_one_run(tmp_path):
    place = Place(tmp_path, items=60, seed=121)  # the first moment is 0.5 s: nobody is done by then
    assert run_shards(place, kills=3, most_s=6.0) >= 1
    compare(place, "shards")

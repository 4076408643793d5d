from __future__ import annotations

import sys

import pytest

from sam2_blocks.cli import options
from tests.cli.conftest import COFFEE, QUICKSTART


def test_without_ray_it_is_said_before_anything_loads(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("sam2_blocks.cli.run.load_plugins", None)
    code, _, err = call("run", "none.yaml", "-i", "none", "-o", tmp_path, "--on", "ray")
    assert code == options.STOPPED
    assert "--on ray needs Ray" in err
    assert "pip install 'sam2-blocks[ray]'" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--workers", "2"], "--workers is for a run on a cluster; add --on ray."),
        (["--address", "auto"], "--address is for a run on a cluster; add --on ray."),
        (["--gpus-per-worker", "0"], "--gpus-per-worker is for a run on a cluster"),
        (["--on", "ray", "--shard", "1/2"], "--shard is for a run in one process"),
        (["--on", "ray", "--report"], "--report is for a run in one process; leave it out"),
        (["--on", "ray", "--format", "folder"], "--on ray writes Parquet parts alone"),
    ],
)
def test_options_that_do_not_go_together_are_refused(call, tmp_path, given, message):
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path, *given)
    assert code == options.WRONG_INPUT
    assert message in err

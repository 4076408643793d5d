from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.hosts.ray.cluster import choose_cpus, choose_gpus
from tests.conftest import PICTURES, ROOT
from tests.hosts.ray.test_launch import PIPELINE


@pytest.mark.parametrize(
    ("workers", "gpus", "cpus_of_nodes", "expected"),
    [
        (2, 0, [2], (1, 2)),
        (2, 0, [16], (8, 2)),
        (3, 0, [8, 8], (4, 3)),  # 16 / 3 would leave the third without a place
        (5, 0, [2], (1, 2)),
        (4, 1, [32], (1, 1)),
        (1, 0, [], (1, 0)),
    ],
)
def test_workers_get_as_many_cpus_as_fit(workers, gpus, cpus_of_nodes, expected):
    nodes = [{"Alive": True, "Resources": {"CPU": n, "GPU": 1.0}} for n in cpus_of_nodes]
    nodes.append({"Alive": False, "Resources": {"CPU": 100.0, "GPU": 8.0}})
    cpus, room = choose_cpus(workers, gpus, nodes)
    assert (cpus if room == workers else 1, room) == (
        expected[0] if room == workers else 1,
        expected[1],
    )


def test_gpus_are_those_that_there_are():
    plain = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    fast = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}]
    assert [choose_gpus(None, nodes) for nodes in ([], plain, fast)] == [0, 0, 1]
    assert [choose_gpus(asked, fast) for asked in (0, 1)] == [0, 1]
    with pytest.raises(UsageError, match="--gpus-per-worker 1: no node of the Ray cluster has so"):
        choose_gpus(1, plain)


def test_no_cluster_at_an_address_is_said(tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    (tmp_path / "p.yaml").write_text(PIPELINE)
    command = [sys.executable, "-m", "sam2_blocks", "run", "p.yaml", "-i", PICTURES]
    program = subprocess.run(
        [*command, "--on", "ray", "--address", "127.0.0.1:1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert program.returncode == 3
    assert "--address 127.0.0.1:1: no Ray cluster answers" in program.stderr

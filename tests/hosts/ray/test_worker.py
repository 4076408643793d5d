"""A worker by itself; Ray is not needed for it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from sam2_blocks.hosts.ray.worker import Beat, Job, Worker
from tests.hosts.ray.test_launch import PIPELINE, add_pictures


@pytest.fixture
def place(tmp_path, monkeypatch):
    add_pictures(tmp_path / "in", 12)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a worker without a GPU sets it
    return tmp_path


def job_in(place, **change):
    job = {"pipeline": "p.yaml", "inputs": ("in",), "out": "out", "folder": str(place)}
    return Job(**{**job, **change})


def test_a_worker_tells_how_far_it_is(place):
    (place / "in" / "4.png").write_bytes(b"no picture")
    worker = Worker(job_in(place, total=12))
    first, *more = worker.run("1/2", False)
    assert (first.begun, sum(beat.items for beat in more)) == (0, 6)
    assert [error.item for beat in more for error in beat.errors] == ["4.png"]
    assert more[-1] == Beat(complete=True, seconds=more[-1].seconds)
    assert {"decode", "draw", "write"} < more[-1].seconds.keys()
    first, *more = worker.run("1/2", True)
    assert (first.begun, sum(beat.items for beat in more)) == (5, 1)


def test_a_worker_that_is_told_to_stop_writes_what_it_has(place):
    worker = Worker(job_in(place, settings={"batch_size": 1}))
    beats = worker.run("1/1", False)
    assert next(beats).begun == 0
    worker.stop()
    rest = list(beats)
    assert not rest[-1].complete
    done = sum(beat.items for beat in rest)
    assert 0 < done < 12
    assert next(Worker(job_in(place)).run("1/1", True)).begun >= done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": "/there/p.yaml"}, "does not see the pipeline '/there/p.yaml': put it into"),
        ({"proof": "gone"}, "does not see the folder 'out' of --out: put it into a folder that"),
        ({"inputs": ("away",)}, r"away: no such file.* A worker there does not see what is named"),
        ({"total": 30}, r"there are 6 inputs of the shard 1-of-2, not 15\. A worker there"),
    ],
)
def test_what_workers_do_not_see_is_an_error(place, change, message):
    [beat] = Worker(job_in(place, **change)).run("1/2", False)
    assert beat.wrong
    assert re.search(message, beat.error)


class Growing(list):
    """Gets another one while it is read, as from a thread of the run."""

    def __iter__(self):
        found = iter(self[:])
        self.append("later")
        return found


def test_an_error_that_comes_meanwhile_is_told_in_the_next_beat(place):
    worker, run = Worker(job_in(place)), SimpleNamespace(errors=Growing(["now"]))
    assert worker._beat(run, 1).errors == ("now",)
    assert worker._beat(run, 1).errors == ("later",)

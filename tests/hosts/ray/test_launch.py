from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import run_pipeline
from sam2_blocks.errors import Sam2BlocksError, UsageError
from sam2_blocks.runs.merge import merge_parts
from tests.conftest import ROOT
from tests.hosts.ray.conftest import QUIET

pytestmark = QUIET

PIPELINE = """\
pipeline_version: 1
inputs:
  image: {kind: image}
steps:
  draw: {use: draw/masks@v1, with: {image: $inputs.image, predictions: []}}
outputs:
  picture: $steps.draw.image
"""
WORKERS = 2


def options(**more):
    from sam2_blocks.hosts.ray.launch import RayOptions

    return RayOptions(workers=more.pop("workers", WORKERS), gpus_per_worker=0, **more)


def add_pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        pixels = np.full((20, 30, 3), number, np.uint8)
        Pil.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to be in, with twelve pictures in ``in`` and a pipeline without a model."""
    pytest.importorskip("ray", reason="needs the extra ray")
    add_pictures(tmp_path / "in", 12)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(inputs=("in",), out="out", pipeline="p.yaml", **more):
    from sam2_blocks.hosts.ray.launch import run_on_ray

    own = {name: more.pop(name) for name in ("workers", "address") if name in more}
    return run_on_ray(pipeline, inputs, out, options(**own), **more)


def follow(run, hear=lambda beat: None):
    with run:
        for beat in run:
            hear(beat)
    return run


def parts_of(out):
    """What is in a folder of parts: manifests without who wrote, rows, and other files."""
    found = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".json":
            found[path.name] = {**json.loads(path.read_text()), "writer": ""}
        else:
            found[path.name] = pq.read_table(path).to_pylist()
    return found


def test_parts_and_manifests_are_those_of_shards_without_ray(cluster, place):
    (place / "in" / "7.png").write_bytes(b"no picture")
    run = follow(start())
    assert (run.total, run.done, run.done_before) == (12, 12, 0)
    assert [error.item for error in run.errors] == ["7.png"]
    for number in range(1, WORKERS + 1):
        list(run_pipeline("p.yaml", ["in"], out="alone", shard=f"{number}/{WORKERS}"))
    assert parts_of(place / "out") == parts_of(place / "alone")


def test_a_run_goes_on_with_the_shards_there_are(cluster, place):
    follow(start(workers=3))
    (place / "in" / "new.png").write_bytes((place / "in" / "1.png").read_bytes())
    run = follow(start(workers=1, resume=True))
    assert (run.done_before, run.done) == (12, 13)
    assert len(list((place / "out").glob("manifest-*-of-3.json"))) == 3
    rows = pq.read_table(merge_parts(place / "out", "parquet").path).to_pylist()
    assert [row["id"] for row in rows] == [*(f"{n}.png" for n in range(12)), "new.png"]


def test_standard_input_is_sent_along(cluster, place, monkeypatch):
    import io

    text = "".join(f"in/{number}.png\n" for number in range(5))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert follow(start(["-"])).done == 5
    rows = pq.read_table(merge_parts(place / "out", "parquet").path).to_pylist()
    assert [row["id"] for row in rows] == [f"in/{number}.png" for number in range(5)]


def test_the_shard_of_a_lost_worker_is_started_again(cluster, place):
    fifo = place / "in" / "5.png"
    fifo.unlink()
    os.mkfifo(fifo)  # who reads it waits
    (place / "all.txt").write_text("".join(f"in/{number}.png\n" for number in range(12)))
    with start(["all.txt"]) as run:
        for beat in run:
            if beat.process[0] and run._tasks[-1].process == beat.process and fifo.is_fifo():
                os.kill(beat.process[0], signal.SIGKILL)
                fifo.unlink()
                Pil.fromarray(np.zeros((20, 30, 3), np.uint8)).save(fifo)
    assert (run.done, run.errors) == (12, [])
    [note] = run.notes
    assert re.fullmatch(r"shard 2-of-2: lost worker \d+ on .*; another one goes on", note)
    rows = pq.read_table(merge_parts(place / "out", "parquet").path).to_pylist()
    assert [row["id"] for row in rows] == [f"in/{n}.png" for n in range(12)]


def test_a_worker_that_is_lost_again_and_again_ends_the_run(cluster, place, monkeypatch):
    from sam2_blocks.hosts.ray import launch

    monkeypatch.setattr(launch, "MOST_LOST", 2)
    fifo = place / "in" / "5.png"
    fifo.unlink()
    os.mkfifo(fifo)
    (place / "all.txt").write_text("in/5.png\n")
    run = start(["all.txt"], workers=1)
    with pytest.raises(Sam2BlocksError, match="2 workers were lost one after another before any"):
        follow(run, lambda beat: beat.process[0] and os.kill(beat.process[0], signal.SIGKILL))
    assert "lost worker" in run.notes[0]


def test_an_interruption_ends_workers_and_keeps_what_is_finished(place):
    """Ctrl-C of the program: the worker waits for a picture that takes its time."""
    fifo = place / "in" / "11.png"
    fifo.unlink()
    os.mkfifo(fifo)
    (place / "all.txt").write_text("".join(f"in/{number}.png\n" for number in range(12)))
    command = [sys.executable, "-m", "sam2_blocks", "run", "p.yaml", "-i", "all.txt", "--on"]
    command += ["ray", "--workers", "1", "--gpus-per-worker", "0", "--batch-size", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    )
    writer = os.open(fifo, os.O_WRONLY)  # waits until the worker reads
    program.send_signal(signal.SIGINT)
    time.sleep(8)  # until the worker is told
    os.close(writer)  # an empty file: no picture
    _, told = program.communicate(timeout=300)
    assert program.returncode == 130, told
    assert b"interrupted" in told
    manifest = json.loads((place / "out" / "manifest-1-of-1.json").read_text())
    assert not manifest["complete"]
    assert 8 <= sum(part["rows"] for part in manifest["parts"]) < 12
    assert not list((place / "out").glob(".*"))


def test_what_is_wrong_in_one_shard_ends_the_run(cluster, place):
    follow(start())
    (place / "p.yaml").write_text(PIPELINE.replace("draw", "paint").replace("paint/", "draw/"))
    with pytest.raises(UsageError, match=r"shard \d-of-2, .*pipeline (changed|differ)"):
        follow(start(resume=True))
    with pytest.raises(UsageError, match="in2: no such file, folder or match"):
        start(["in2"])

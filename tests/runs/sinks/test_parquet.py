from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import run_pipeline
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.runs.sinks import parquet
from sam2_blocks.testing import FakeExecutor
from tests.conftest import ROOT

BOXES = [[5, 5, 30, 30], [1, 2, 20, 10]]
SEGMENT = {
    "pipeline_version": 1,
    "inputs": {
        "image": {"kind": "image"},
        "boxes": {"kind": "object_detection_prediction", "default": BOXES},
    },
    "steps": {
        "find": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
        }
    },
    "outputs": {"found": "$steps.find.predictions"},
}
EXPORT = {
    "use": "export/coco@v1",
    "with": {"image": "$inputs.image", "predictions": "$steps.find.predictions"},
}
EXPORTING = {**SEGMENT, "steps": {**SEGMENT["steps"], "export": EXPORT}}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)
    monkeypatch.setattr(parquet, "PART_ROWS", 3)


def add(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Pil.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / name)


@pytest.fixture
def pictures(tmp_path):
    add(tmp_path / "in", *(f"{n}.png" for n in range(10)))
    return tmp_path / "in"


@pytest.fixture
def start(plugins, tmp_path):
    """Run into a folder of parts: ``start(inputs, …)``; returns the ids that were run."""

    def run(inputs, pipeline=SEGMENT, out=tmp_path / "out", **options):
        options = {"form": "parquet", "batch_size": 2, **options}
        return [r.id for r in run_pipeline(pipeline, inputs, out=out, plugins=plugins, **options)]

    return run


def rows_of(out, sort="part"):
    return [row for file in sorted(Path(out).glob(f"{sort}-*.parquet"))
            for row in pq.read_table(file).to_pylist()]  # fmt: skip


def merged(out):
    return pq.read_table(merge_parts(out, "parquet").path).to_pylist()


def test_an_item_is_a_typed_row(start, pictures, tmp_path):
    start(pictures)
    out = tmp_path / "out"
    assert [row.num_rows for row in map(pq.read_table, sorted(out.glob("part-*")))] == [3, 3, 3, 1]
    first = rows_of(out)[0]
    assert (first["id"], first["place"], first["image_hw"]) == ("0.png", 0, [40, 60])
    assert first["source"] == str(pictures / "0.png")
    assert [found["bbox"] for found in first["found"]] == [[5, 5, 25, 25], [1, 2, 19, 8]]
    assert first["found"][0]["segmentation"]["size"] == [40, 60]
    assert first["found"][0]["class_name"] == "object"
    assert not list(out.glob(".*"))


def test_a_failure_is_beside_the_rows_and_run_again(start, pictures, tmp_path):
    (pictures / "3.png").write_bytes(b"no picture")
    start(pictures)
    (failure,) = rows_of(tmp_path / "out", "errors")
    assert (failure["id"], failure["place"]) == ("3.png", 3)
    assert failure["errors"][0]["step"] == "inputs"
    assert "not a picture" in failure["errors"][0]["message"]
    assert "3.png" not in [row["id"] for row in rows_of(tmp_path / "out")]
    add(pictures, "3.png")
    assert start(pictures, resume=True) == ["3.png"]
    assert rows_of(tmp_path / "out", "errors") == []
    assert [row["id"] for row in merged(tmp_path / "out")] == [f"{n}.png" for n in range(10)]


def test_what_changed_is_run_again_and_what_is_gone_has_no_row(start, pictures, tmp_path):
    start(pictures)
    Pil.fromarray(np.zeros((50, 70, 3), np.uint8)).save(pictures / "1.png")
    (pictures / "5.png").unlink()
    add(pictures, "99.png")
    assert start(pictures, resume=True) == ["1.png", "99.png"]
    rows = merged(tmp_path / "out")
    assert [row["id"] for row in rows] == [*(f"{n}.png" for n in range(10) if n != 5), "99.png"]
    assert rows[1]["image_hw"] == [50, 70]


def test_shards_together_are_one_run(start, pictures, tmp_path):
    start(pictures)
    for number in (2, 1, 3):
        start(pictures, out=tmp_path / "shards", shard=f"{number}/3", form=None)
    assert merged(tmp_path / "shards") == merged(tmp_path / "out")


def test_results_go_to_any_file_system(start, pictures, tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    start(pictures, out="memory://out", form=None)
    assert start(pictures, out="memory://out", form=None, resume=True) == []
    start(pictures)
    path = merge_parts("memory://out", "parquet", path=tmp_path / "m.parquet").path
    assert pq.read_table(path).to_pylist() == merged(tmp_path / "out")
    with pytest.raises(UsageError, match=r"step 'export' writes files.*folders of this machine"):
        start(pictures, EXPORTING, out="memory://other", form=None)
    with pytest.raises(UsageError, match="written as Parquet alone"):
        start(pictures, out="memory://other", form="folder")


def test_a_file_for_all_items_is_one_a_shard(start, pictures, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        start(pictures, EXPORTING, shard=f"{number}/2")
    names = {}
    for number in (1, 2):
        coco = json.loads((out / f"coco.{number}-of-2.json").read_text())
        names[number] = [image["file_name"] for image in coco["images"]]
    assert names[1] == ["0.png", "2.png", "4.png", "6.png", "8.png"]
    assert names[2] == ["1.png", "3.png", "5.png", "7.png", "9.png"]
    add(pictures, "5.png")
    assert start(pictures, EXPORTING, shard="2/2", resume=True) == ["5.png"]
    coco = json.loads((out / "coco.2-of-2.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == names[2]


def test_runs_are_not_mixed(start, pictures, tmp_path):
    start(pictures, shard="1/2")
    changed = {**SEGMENT, "outputs": {"other": "$steps.find.predictions"}}
    with pytest.raises(UsageError, match="the shard 1-of-2 is of another run: pipeline differ"):
        start(pictures, changed, shard="2/2")
    with pytest.raises(UsageError, match="cannot --resume, because pipeline changed"):
        start(pictures, changed, shard="1/2", resume=True)
    with pytest.raises(UsageError, match="holds a run of 2 shards, this is one of 1"):
        start(pictures)
    add(tmp_path / "other", "x.png")
    with pytest.raises(UsageError, match="holds results of another input"):
        start(tmp_path / "other", shard="1/2")
    with pytest.raises(UsageError, match="cannot resume: nobody can tell"):
        start([np.zeros((4, 4, 3), np.uint8)], out=tmp_path / "new", resume=True)


def test_a_part_that_was_cut_short_is_made_again(start, pictures, tmp_path):
    start(pictures)
    part = tmp_path / "out" / "part-1-of-1-00001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"00001\.parquet: has \d+ bytes, not the \d+"):
        merge_parts(tmp_path / "out", "coco")
    assert start(pictures, resume=True) == ["3.png", "4.png", "5.png"]
    assert [row["id"] for row in merged(tmp_path / "out")] == [f"{n}.png" for n in range(10)]


def test_a_full_disk_ends_the_run_and_loses_nothing(start, pictures, tmp_path, monkeypatch):
    from sam2_blocks.runs.stores import LocalStore

    write = LocalStore.write

    def full(self, name, content):
        if name == "part-1-of-1-00002.parquet":
            raise OSError(28, "No space left on device")
        write(self, name, content)

    monkeypatch.setattr(LocalStore, "write", full)
    with pytest.raises(OSError, match="No space left"):
        start(pictures)
    monkeypatch.setattr(LocalStore, "write", write)
    assert start(pictures, resume=True) == ["6.png", "7.png", "8.png", "9.png"]
    assert [row["id"] for row in merged(tmp_path / "out")] == [f"{n}.png" for n in range(10)]


def test_who_does_not_want_to_wait_at_the_end_leaves_no_lock(
    start, pictures, tmp_path, monkeypatch
):
    def interrupt(pool):
        plain(pool)
        raise KeyboardInterrupt

    plain = parquet.ThreadPoolExecutor.shutdown
    with monkeypatch.context() as patch:
        patch.setattr(
            parquet, "ThreadPoolExecutor", type("", (ThreadPoolExecutor,), {"shutdown": interrupt})
        )
        with pytest.raises(KeyboardInterrupt):
            start(pictures)
    assert not list((tmp_path / "out").glob(".lock*"))
    assert start(pictures, resume=True) == []


def test_names_of_columns_are_not_outputs(start, pictures):
    with pytest.raises(UsageError, match="no output may be called 'place'"):
        start(pictures, {**SEGMENT, "outputs": {"place": "$steps.find.predictions"}})


def test_what_a_table_has_no_type_for_is_said(plugins, pictures, tmp_path):
    outputs = {"found": "$steps.find.predictions", "rows": "$steps.export.annotations"}
    run = run_pipeline(
        {**EXPORTING, "outputs": outputs},
        pictures,
        out=tmp_path / "out",
        form="parquet",
        plugins=plugins,
    )
    assert "output 'rows' has no type in a table and is not written" in run.notes


def test_items_whose_boxes_changed_are_run_again(start, tmp_path):
    add(tmp_path / "in", "a.png", "b.png")
    boxes = {name: tmp_path / "in" / f"{name}.json" for name in "ab"}
    for path in boxes.values():
        path.write_text("[[5, 5, 20, 20]]")
    load = {"use": "detections/load@v1", "with": {"image": "$inputs.image"}}
    find = {**SEGMENT["steps"]["find"]["with"], "boxes": "$steps.load.detections"}
    steps = {"load": load, "find": {**SEGMENT["steps"]["find"], "with": find}}
    pipeline = {**SEGMENT, "steps": steps}
    start(tmp_path / "in", pipeline)
    boxes["b"].write_text("[[5, 5, 20, 20], [1, 1, 9, 9]]")
    assert start(tmp_path / "in", pipeline, resume=True) == ["b.png"]
    assert [len(row["found"]) for row in merged(tmp_path / "out")] == [1, 2]
    assert start(tmp_path / "in", pipeline, resume=True) == []


PROGRAM = """
import sys, time
import sam2_blocks.engine.builtin as builtin
from sam2_blocks import run_pipeline, load_plugins
from sam2_blocks.runs.sinks import parquet
from sam2_blocks.testing import FakeExecutor
from tests.runs.sinks.test_parquet import SEGMENT
builtin.load_sam2 = FakeExecutor
parquet.PART_ROWS = 7
plugins = load_plugins(strict=True, points=[])
results = run_pipeline(SEGMENT, sys.argv[1], out=sys.argv[2], form="parquet", batch_size=2,
                       resume=True, shard=sys.argv[3], plugins=plugins)
for number, _ in enumerate(results):
    time.sleep(600 if number == int(sys.argv[4]) else 0.005)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="wants a system that kills")
def test_shards_that_are_killed_and_resumed_are_one_run(start, tmp_path):
    chance = random.Random(3)
    options = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": "."}}
    add(tmp_path / "in", *(f"{n:03}.png" for n in range(120)))
    for shard in ("1/2", "2/2"):
        command = [sys.executable, "-c", PROGRAM, tmp_path / "in", tmp_path / "killed", shard]
        manifest = tmp_path / "killed" / f"manifest-{shard.replace('/', '-of-')}.json"
        for _ in range(3):
            process = subprocess.Popen([*command, "15"], **options)  # waits then, to be killed
            seen = manifest.read_bytes() if manifest.exists() else b""
            while process.poll() is None and (
                not manifest.exists() or manifest.read_bytes() == seen
            ):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        subprocess.run([*command, "-1"], check=True, **options)
    start(tmp_path / "in")
    assert merged(tmp_path / "killed") == merged(tmp_path / "out")


def test_a_name_that_is_no_text_is_in_a_row_and_comes_back(start, tmp_path):
    folder = tmp_path / "in"
    add(folder, "a.png")
    for name in (b"caf\xe9.png", b"\xff.png"):
        try:
            shutil.copy(folder / "a.png", os.fsencode(folder) + b"/" + name)
        except OSError:
            pytest.skip("the file system takes no such names")
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    assert sorted(start(folder)) == ["a.png", "caf\udce9.png", "\udcff.png"]
    (failure,) = rows_of(tmp_path / "out", "errors")
    assert failure["id"] == r"\udcff.png"
    assert [row["id"] for row in merged(tmp_path / "out")] == ["a.png", r"caf\udce9.png"]
    assert start(folder, resume=True) == ["\udcff.png"]
    coco = json.loads(merge_parts(tmp_path / "out", "coco").path.read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "caf\udce9.png"]
    merge_parts(tmp_path / "out", "yolo", path=tmp_path / "set")
    assert (tmp_path / "set" / "labels" / "caf\udce9.txt").exists()


def test_an_input_folder_that_is_no_text_is_gone_on_with(start, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    try:
        add(folder, "a.png", "b.png")
    except OSError:
        pytest.skip("the file system takes no such names")
    start(folder)
    assert start(folder, resume=True) == []


def test_merged_coco_is_that_of_the_exporter_for_boxes_of_a_coco_file(start, pictures, tmp_path):
    """Ids of pictures and boxes, and categories that nothing is of."""
    images = [{"id": 70 - n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(3)]
    row = {"category_id": 8, "bbox": [5, 5, 20, 20]}
    annotations = [
        {"id": 31, "image_id": 70, **row},
        {"id": 30, "image_id": 68, **row, "iscrowd": 1},
        {"id": 33, "image_id": 68, **row, "category_id": 2},
    ]
    categories = [
        {"id": i, "name": n, "supercategory": "x"} for i, n in ((8, "b"), (2, "a"), (5, "c"))
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (pictures / "boxes.json").write_text(json.dumps(content))
    for number in (1, 2):
        start(pictures / "boxes.json", EXPORTING, shard=f"{number}/2")
    coco = json.loads(merge_parts(tmp_path / "out", "coco").path.read_text())
    start(pictures / "boxes.json", EXPORTING, out=tmp_path / "whole", form="folder")
    expected = json.loads((tmp_path / "whole" / "coco.json").read_text())
    for name in ("images", "annotations", "categories"):
        assert coco[name] == expected[name], name
    assert [image["id"] for image in coco["images"]] == [70, 69, 68]
    assert [row["id"] for row in coco["annotations"]] == [31, 33]  # a crowd is no prompt

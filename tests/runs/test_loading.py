from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import load_dataset, run_pipeline
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.testing import FakeExecutor
from tests.runs.sinks.test_parquet import SEGMENT


@pytest.fixture
def start(plugins, tmp_path, monkeypatch):
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)

    def run(inputs, **settings):
        out = tmp_path / "out"
        options = {"form": "parquet", "plugins": plugins, "out": out}
        return list(run_pipeline(SEGMENT, inputs, settings=settings, **options)), out

    return run


def add(path):
    pixels = np.full((40, 60, 3), 9, np.uint8)
    Pil.fromarray(pixels).save(path)
    return str(path)


def test_parts_are_a_data_set_of_supervision(start, tmp_path):
    """Classes in alphabetical order, ids from 0; pictures are opened when they are looked at."""
    paths = [add(tmp_path / f"{n}.png") for n in range(2)]
    boxes = [{"box_xyxy": [5, 5, 30, 30], "class_name": name, "class_id": 70} for name in "bab"]
    rows = [{"image": paths[0], "boxes": boxes}, {"image": paths[1], "boxes": boxes[1:2]}]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results, out = start(tmp_path / "all.jsonl")
    assert not [error for result in results for error in result.errors]
    dataset = load_dataset(out)
    assert (dataset.classes, dataset.image_paths) == (["a", "b"], paths)
    path, picture, found = dataset[0]
    assert (path, picture.shape, found.class_id.tolist()) == (paths[0], (40, 60, 3), [1, 0, 1])
    expected = results[0].outputs["found"]
    np.testing.assert_array_equal(np.asarray(found.mask), np.asarray(expected.mask))
    dataset.as_coco(annotations_path=str(tmp_path / "coco.json"))
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 4


def test_what_is_no_file_and_what_is_there_twice_is_refused(start, tmp_path):
    import fsspec

    path = add(tmp_path / "a.png")
    system = fsspec.filesystem("memory")
    system.store.clear()
    with open(path, "rb") as file:
        system.pipe_file("/in/a.png", file.read())
    _, out = start("memory:///in/a.png")
    with pytest.raises(UsageError, match=r"the picture of 'a\.png' is no file of this machine"):
        load_dataset(out)
    with pytest.raises(UsageError, match="holds no parts; run with --format parquet"):
        load_dataset(tmp_path)
    for file in out.iterdir():
        file.unlink()
    rows = [{"id": name, "image": path} for name in "ab"]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out = start(tmp_path / "all.jsonl")
    with pytest.raises(UsageError, match="two items are of the picture"):
        load_dataset(out)


@pytest.mark.filterwarnings("ignore")
def test_parts_are_a_data_set_of_hugging_face(start, tmp_path):
    datasets = pytest.importorskip("datasets")
    results, out = start(add(tmp_path / "a.png"))
    rows = datasets.load_dataset(
        "parquet", data_files=f"{out}/part-*.parquet", split="train", cache_dir=f"{tmp_path}/cache"
    )
    assert (rows[0]["id"], rows[0]["image_hw"]) == ("a.png", [40, 60])
    found = rows[0]["found"]
    assert [one["segmentation"]["size"] for one in found] == [[40, 60]] * 2
    areas = np.asarray(results[0].outputs["found"].mask).sum(axis=(1, 2))
    assert [one["area"] for one in found] == areas.tolist()


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_becomes_samples_of_fiftyone(start, tmp_path):
    fo = pytest.importorskip("fiftyone")
    from sam2_blocks.hosts.fiftyone import to_fiftyone

    path = add(tmp_path / "a.png")
    _, out = start(path)
    [sample] = [fo.Sample(p, masks=to_fiftyone(found)) for p, _, found in load_dataset(out)]
    assert sample.filepath == path
    assert [bool(label.mask.any()) for label in sample.masks.detections] == [True] * 2


@pytest.fixture
def project(start, tmp_path, monkeypatch):
    """A folder with results of pictures that were given by a relative path."""
    (tmp_path / "pictures").mkdir()
    add(tmp_path / "pictures" / "a.png")
    monkeypatch.chdir(tmp_path)
    _, out = start("pictures")
    assert out == tmp_path / "out"
    return tmp_path


def test_relative_paths_are_seen_from_the_folder_of_the_parts(project, tmp_path, monkeypatch):
    [part] = (project / "out").glob("part-*.parquet")
    assert pq.read_table(part)["source"].to_pylist() == ["../pictures/a.png"]
    assert load_dataset("out").image_paths == ["pictures/a.png"]
    monkeypatch.chdir("/")
    assert load_dataset(project / "out").image_paths == [str(project / "pictures" / "a.png")]
    moved = project.rename(tmp_path.with_name("moved"))
    [(path, picture, _)] = load_dataset(moved / "out")
    assert (path, picture.shape) == (str(moved / "pictures" / "a.png"), (40, 60, 3))
    moved.rename(tmp_path)


def test_where_a_picture_was_looked_for_is_said(project, monkeypatch):
    monkeypatch.chdir("/")
    (project / "pictures" / "a.png").unlink()
    out, looked = project / "out", project / "pictures" / "a.png"
    message = (
        f"{looked}: no such file; the picture of 'a.png' should be there, which is "
        f"'../pictures/a.png' seen from the folder '{out}'."
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        load_dataset(out)


def test_a_table_merged_elsewhere_names_pictures_from_there(project, plugins):
    merge_parts("out", "parquet", path=Path("deep/er/all.parquet"))
    [row] = pq.read_table("deep/er/all.parquet").to_pylist()
    assert row["source"] == "../../pictures/a.png"
    merge_parts("out", "parquet")
    [row] = pq.read_table("out/merged.parquet").to_pylist()
    assert row["source"] == "../pictures/a.png"

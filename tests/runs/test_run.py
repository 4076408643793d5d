from __future__ import annotations

import errno
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import Exporter, Image, Item, hookimpl, load_executor, run_pipeline
from sam2_blocks.errors import (
    ModelError,
    PipelineError,
    PluginError,
    SourceError,
    StepError,
    UsageError,
)
from sam2_blocks.executors import Family
from sam2_blocks.files.claims import JOURNAL_FILE, OutputFiles
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.turns import TURN_S

SEGMENT = {
    "pipeline_version": 1,
    "inputs": {
        "image": {"kind": "image"},
        "boxes": {"kind": "object_detection_prediction", "default": [[5, 5, 30, 30]]},
    },
    "steps": {
        "find": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
        }
    },
    "outputs": {"found": "$steps.find.predictions"},
}
PIXELS = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)


@pytest.fixture
def start(plugins):
    """Run `SEGMENT`: ``start(inputs, …)``."""

    def run(inputs, pipeline=SEGMENT, **options):
        return run_pipeline(pipeline, inputs, **{"plugins": plugins, **options})

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Pil.fromarray(PIXELS).save(tmp_path / "in" / name)
    return tmp_path / "in"


def exporting(block="export/yolo@v1"):
    wires = {"image": "$inputs.image", "predictions": "$steps.find.predictions"}
    steps = {**SEGMENT["steps"], "export": {"use": block, "with": wires}}
    return {**SEGMENT, "steps": steps}


def test_the_name_of_no_model_fails_the_item_it_comes_with(start):
    inputs = {**SEGMENT["inputs"], "model": {"kind": "string", "default": "nano"}}
    find = SEGMENT["steps"]["find"]
    find = {**find, "with": {**find["with"], "model": "$inputs.model"}}
    named = {**SEGMENT, "inputs": inputs, "steps": {"find": find}}
    rows = [{"image": PIXELS, "model": model} for model in ("nano", "nanno", "hiera_tiny")]
    results = list(start([*rows, {"image": PIXELS}], named, batch_size=2))
    assert [len(result.outputs.get("found", ())) for result in results] == [1, 0, 1, 1]
    [error] = results[1].errors
    assert (error.step, error.cause) == ("inputs", "ValueError")
    expected = "input 'model': as 'model' of step 'find': there is no model 'nanno'. Did you mean"
    assert error.message.startswith(expected)


@pytest.fixture
def far(monkeypatch):
    """Models called ``nano`` load; all others cannot be downloaded."""
    asked: list[str] = []

    def load(name, **options):
        asked.append(name)
        if options.get("device") == "cuda:7":
            raise RuntimeError("there is no cuda:7")
        if name != "nano":
            raise ModelError(f"{name} cannot be downloaded: no network")
        return FakeExecutor(name, **options)

    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", load)
    return asked


def choosing(**inputs):
    """`SEGMENT`, whose model and device are inputs."""
    given = {"model": {"kind": "string", "default": "nano"}, **inputs}
    find = SEGMENT["steps"]["find"]
    values = {**find["with"], **{name: f"$inputs.{name}" for name in given}}
    inputs = {**SEGMENT["inputs"], **given}
    return {**SEGMENT, "inputs": inputs, "steps": {"find": {**find, "with": values}}}


def test_a_model_that_cannot_be_loaded_fails_the_rows_that_name_it(far, start):
    names = ["nano", "hiera_large", None, "nano", "hiera_large", None, "hiera_large"]
    rows = [{"image": PIXELS, **({"model": name} if name else {})} for name in names]
    results = list(start(rows, choosing(), batch_size=4))
    assert [len(result.outputs.get("found", ())) for result in results] == [
        int(name != "hiera_large") for name in names
    ]
    errors = [error for result in results for error in result.errors]
    assert {(e.step, e.cause, e.message) for e in errors} == {
        ("find", "ModelError", "hiera_large cannot be downloaded: no network")
    }
    assert far.count("hiera_large") == 1  # and not a download a row
    assert len(errors) == 3


@pytest.mark.parametrize("settings", [{"model": "hiera_large"}, {}])
def test_a_model_of_the_whole_run_that_cannot_be_loaded_ends_it(far, start, settings):
    pipeline = choosing(min_confidence={"kind": "float", "default": 0.1})
    if not settings:
        pipeline["inputs"]["model"]["default"] = "hiera_large"
    rows = [{"image": PIXELS, "min_confidence": 0.5}, {"image": PIXELS}]
    with pytest.raises(StepError, match=r"step 'find' \(sam2/segment@v1\): hiera_large cannot be"):
        list(start(rows, pipeline, settings=settings))


def test_a_device_that_is_not_there_fails_the_row_that_names_it(far, start):
    pipeline = choosing(device={"kind": "string", "default": "cpu"})
    rows = [{"image": PIXELS}, {"image": PIXELS, "device": "cuda:7"}, {"image": PIXELS}]
    results = list(start(rows, pipeline))
    assert [len(result.errors) for result in results] == [0, 1, 0]
    assert "there is no cuda:7" in results[1].errors[0].message


@pytest.mark.parametrize("block", ["export/yolo@v1", "export/coco@v1"])
def test_a_disk_that_is_full_ends_the_run_and_not_item_by_item(
    start, folder, tmp_path, monkeypatch, block
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    where = {"yolo": "files.per_picture.write_text", "coco": "files.json_lines.JsonLines._write"}
    run = start(folder, exporting(block), out=tmp_path / "out", batch_size=1)
    with monkeypatch.context() as patched:
        patched.setattr(f"sam2_blocks.{where[block[7:11]]}", full)
        with pytest.raises(OSError, match="No space left"):
            list(run)
    assert run.errors == []
    assert not list((tmp_path / "out").glob("*.png/found.json"))
    results = list(start(folder, exporting(block), out=tmp_path / "out", resume=True))
    assert [result.errors for result in results] == [(), (), ()]


def test_pictures_of_any_form_are_inputs(start, folder):
    values = [PIXELS, Image(PIXELS, "named"), Image(PIXELS), Pil.fromarray(PIXELS)]
    values += [folder / "a.png", Item("own", {"image": PIXELS}), {"image": PIXELS, "boxes": []}]
    results = list(start(iter(values)))
    ids = ["0", "named", "2", "3", (folder / "a.png").as_posix(), "own", "6"]
    assert [result.id for result in results] == ids
    assert [len(result.outputs["found"]) for result in results] == [1] * 6 + [0]
    for alone in (PIXELS, Image(PIXELS), Pil.fromarray(PIXELS), folder / "a.png"):
        assert len(list(start(alone))) == 1
    assert [result.id for result in start(folder)] == ["a.png", "b.png", "c.png"]
    assert [r.id for r in start([folder / "c.png", str(folder / "a.png")])] == ["c.png", "a.png"]


def test_results_are_lazy(start):
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield PIXELS
            number += 1

    with start(endless(), batch_size=2) as run:
        assert run.total is None
        assert next(run).id == "0"
        assert len(taken) < 10
    assert list(run) == []


def test_threads_take_short_turns_while_a_run_is_under_way(start):
    before = sys.getswitchinterval()
    with start([PIXELS, PIXELS]) as run:
        next(run)
        assert sys.getswitchinterval() == pytest.approx(min(before, TURN_S))
    assert sys.getswitchinterval() == before


def test_a_folder_is_written_and_gone_on_with(start, folder, tmp_path):
    out = tmp_path / "out"
    (folder / "b.png").write_bytes(b"broken")
    run = start(folder, out=out)
    assert [bool(result.errors) for result in run] == [False, True, False]
    assert [error.item for error in run.errors] == ["b.png"]
    assert json.loads((out / "errors.json").read_text())[0]["item"] == "b.png"
    Pil.fromarray(PIXELS).save(folder / "b.png")
    with start(str(folder), out=str(out), resume=True) as again:
        assert (again.done_before, again.total) == (2, 1)
        assert [result.id for result in again] == ["b.png"]
    assert sorted(path.name for path in out.glob("*")) == sorted(
        [JOURNAL_FILE, "a.png", "b.png", "c.png"]
    )


def test_a_folder_goes_on_in_the_form_that_it_has(start, folder, tmp_path):
    table, plain = tmp_path / "table", tmp_path / "plain"
    assert len(list(start(folder, out=table, form="parquet"))) == 3
    assert list(start(folder, out=table, resume=True)) == []
    with pytest.raises(
        UsageError, match="holds Parquet parts, and a folder a picture is not mixed"
    ):
        start(folder, out=table, form="folder")
    list(start(folder, out=plain))
    with pytest.raises(
        UsageError, match="holds a folder a picture, and Parquet parts are not mixed"
    ):
        start(folder, out=plain, form="parquet")
    with pytest.raises(UsageError, match="holds a folder a picture"):
        start(folder, out=plain, shard="1/2")


def test_a_run_that_is_left_early_is_gone_on_with(start, folder, tmp_path):
    pipeline = exporting("export/coco@v1")
    with start(folder, pipeline, out=tmp_path / "out", batch_size=1) as run:
        next(run)
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert coco["images"][0]["file_name"] == "a.png"
    rest = start(folder, pipeline, out=tmp_path / "out", resume=True)
    assert "a.png" not in [result.id for result in rest]
    list(start(folder, pipeline, out=tmp_path / "whole"))
    texts = [(tmp_path / name / "coco.json").read_text() for name in ("out", "whole")]
    assert texts[0] == texts[1]


def test_values_are_written_too_but_not_gone_on_with(start, tmp_path):
    for _ in range(2):
        list(start([PIXELS, PIXELS], exporting(), out=tmp_path))
        assert (tmp_path / "1" / "found.json").exists()
        assert (tmp_path / "labels" / "1.txt").exists()
    list(start([PIXELS], exporting(), out=tmp_path))
    assert not (tmp_path / "1").exists()
    assert not (tmp_path / "labels" / "1.txt").exists()
    with pytest.raises(UsageError, match="nobody can tell whether these inputs"):
        list(start([PIXELS], out=tmp_path, resume=True))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (3, {}, UsageError, "inputs: wants paths, pictures, items, or an iterable of them"),
        ("none.png", {}, UsageError, "none.png: no such file"),
        (PIXELS, {"settings": {"boxs": 1}}, UsageError, "Did you mean 'boxes'"),
        (PIXELS, {"resume": True}, UsageError, "resume is for a folder: say where, with out="),
        (PIXELS, {"pipeline": exporting()}, UsageError, "'export' writes files: say where"),
        (PIXELS, {"pipeline": {}}, PipelineError, "pipeline_version"),
        (PIXELS, {"names": "stems"}, UsageError, "names wants 'id' or 'stem', got 'stems'"),
        (PIXELS, {"form": "csv"}, UsageError, "form wants None or 'folder' or 'parquet', got"),
        (PIXELS, {"pictures": None}, UsageError, "pictures wants 'png' or 'jpg', got None"),
        (PIXELS, {"out": 5}, UsageError, "out wants the path of a folder, or a sink, got 5"),
        (PIXELS, {"shard": 1}, UsageError, "shard wants a str, got 1"),
        (PIXELS, {"settings": 5}, UsageError, "settings wants a Mapping, got 5"),
        (PIXELS, {"plugins": 5}, UsageError, "plugins wants a Plugins, got 5"),
    ],
)
def test_what_is_wrong_is_said_at_once(start, inputs, options, error, message):
    with pytest.raises(error, match=message):
        start(inputs, **options)


def test_what_no_picture_is_is_named(start):
    with pytest.raises(UsageError, match="input 1: wants a path, an Image"):
        list(start(iter([PIXELS, 3])))


def test_two_items_of_one_name_are_refused(start):
    with pytest.raises(UsageError, match="two items are called 'a'"):
        list(start(iter([Image(PIXELS, "a"), Image(PIXELS, "a")])))


@pytest.mark.parametrize("form", ["folder", "parquet", None])
def test_pictures_before_an_error_of_a_generator_are_given_and_written(start, tmp_path, form):
    def camera():
        for _ in range(5):
            yield PIXELS
        raise OSError("unplugged")

    out = tmp_path / "out" if form else None
    run = start(camera(), out=out, form=form, batch_size=3)
    ids: list[str] = []
    message = "^inputs: item 6, after '4', cannot be had, .* raised OSError: unplugged"
    with pytest.raises(SourceError, match=message):
        ids.extend(result.id for result in run)
    assert ids == list("01234")
    if form == "folder":
        assert [(out / name / "found.json").is_file() for name in ids] == [True] * 5
    elif form == "parquet":
        [part] = out.glob("part-*.parquet")
        assert pq.read_table(part)["id"].to_pylist() == ids


def test_rows_before_a_torn_one_are_written_and_gone_on_from(start, folder, tmp_path):
    table, row = tmp_path / "rows.csv", b"a%d,in/a.png\n"
    good = b"id,image\n" + b"".join(row % number for number in range(300))
    table.write_bytes(good + b'"b"b,in/b.png\n')
    run = start(table, out=tmp_path / "out", form="parquet")
    ids: list[str] = []
    with pytest.raises(UsageError, match="is no CSV table"):
        ids.extend(result.id for result in run)
    assert len(ids) == 300
    table.write_bytes(good + b"b,in/b.png\n")
    rest = [r.id for r in start(table, out=tmp_path / "out", form="parquet", resume=True)]
    assert [*ids, *rest] == [*(f"a{number}" for number in range(300)), "b"]


def test_two_items_of_one_name_are_refused_before_anything_runs(start, folder, tmp_path):
    (tmp_path / "list.txt").write_text("in/a.png\nin/b.png\nin/a.png\n")
    run = start(tmp_path / "list.txt", out=tmp_path / "out", batch_size=1)
    with pytest.raises(UsageError, match=r"two items are called 'in/a\.png'"):
        next(run)
    assert not list((tmp_path / "out").iterdir())


def test_models_are_shared_with_other_runs(start, plugins, tmp_path):
    resources = plugins.resources()
    files = resources.files
    list(start(PIXELS, resources=resources))
    executor = resources.executor("nano")
    list(start(PIXELS, exporting(), resources=resources, out=tmp_path))
    assert resources.executor("nano") is executor
    assert resources.files is files


def test_a_run_of_its_own_keeps_the_pictures_of_one_batch(start, plugins, monkeypatch):
    monkeypatch.setitem(plugins.executors, "sam2", Family(load_executor))
    pictures = [np.full((40, 60, 3), shade, np.uint8) for shade in range(5)]
    run = start(iter(pictures), batch_size=2)
    assert len(list(run)) == 5
    executor = run._runner.resources.executor("nano")
    assert executor.cache_stats().entries == 1  # of the last batch
    resources = plugins.resources()
    list(start(iter(pictures), batch_size=2, resources=resources))
    assert resources.executor("nano").cache_stats().entries == 5


class Numbers:
    """A source of a plugin."""

    identity, alone, total, notes = "numbers", False, None, ()

    def __init__(self, request):
        self._input = request.image_input

    def items(self):
        for number in range(3):
            yield Item(f"n{number}", {self._input: PIXELS}, "1")


class Kept:
    """A sink of a plugin."""

    notes = failed = ()

    def __init__(self):
        self.results, self.complete, self.files = [], None, OutputFiles()

    def begin(self, source):
        return {"n0"}

    def write(self, result):
        self.results.append(result.id)

    def end(self, *, complete):
        self.complete = complete


def test_a_plugin_brings_places_and_exporters(start, plugins, tmp_path):
    sink = Kept()

    class Plugin:
        @hookimpl
        def register_sources(self):
            return {"n": lambda text, request: Numbers(request) if text == "n:" else None}

        @hookimpl
        def register_sinks(self):
            return {"kept": lambda request: sink if str(request.out) == "kept" else None}

    plugins.register(Plugin(), "mine")
    assert [result.id for result in start("n:", out="kept")] == ["n1", "n2"]
    assert (sink.results, sink.complete) == (["n1", "n2"], True)
    with start("n:", out="kept") as run:
        next(run)
    assert sink.complete is False
    list(start("n:", out=tmp_path / "out"))
    assert (tmp_path / "out" / "n2" / "found.json").exists()


def test_an_exporter_is_a_value(plugins):
    class Plugin:
        @hookimpl
        def register_exporters(self):
            return {"image_embedding": lambda value, path: path}

    with pytest.raises(PluginError, match=r"wants an Exporter\(suffix, write\), got function"):
        plugins.register(Plugin(), "old")


def test_a_plugin_s_kind_is_written_like_ours(start, plugins, tmp_path):
    class Plugin:
        @hookimpl
        def register_exporters(self):
            return {"image_embedding": Exporter(".txt", lambda value, file: file.write(b"here"))}

    plugins.register(Plugin(), "mine")
    pipeline = {
        **SEGMENT,
        "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
        "outputs": {"embedding": "$steps.embed.embedding"},
    }
    list(start([PIXELS], pipeline, out=tmp_path))
    assert (tmp_path / "0" / "embedding.txt").read_text() == "here"


CROPS = {
    "pipeline_version": 1,
    "inputs": SEGMENT["inputs"],
    "steps": {
        "crops": {
            "use": "image/crop@v1",
            "with": {"image": "$inputs.image", "detections": "$inputs.boxes"},
        },
        "masks": {
            "for_each": "$steps.crops.crops",
            "use": "sam2/segment@v1",
            "with": {"image": "$each", "boxes": [[1, 1, 3, 3]]},
        },
    },
    "outputs": {"masks": "$steps.masks.predictions", "crops": "$steps.crops.crops"},
}


def test_a_list_of_what_is_json_is_a_json_file(start, tmp_path, folder):
    under_way = start(folder, pipeline=CROPS, out=tmp_path / "out")
    assert not [error for result in under_way for error in result.errors]
    [[row]] = json.loads((tmp_path / "out" / "a.png" / "masks.json").read_text())
    assert row["box_xyxy"] == [1, 1, 2, 2]
    assert [file.name for file in (tmp_path / "out" / "a.png" / "crops").iterdir()] == ["000.png"]


OUTER = """\
pipeline_version: 1
inputs: {image: {kind: image}}
steps: {inner: {uses: ./inner.yaml, with: {image: $inputs.image}}}
outputs: {image: $steps.inner.image}
"""
INNER = """\
pipeline_version: 1
inputs: {image: {kind: image}}
steps: {turn: {use: image/rotate@v1, with: {image: $inputs.image, degrees: 90}}}
outputs: {image: $steps.turn.image}
"""


def test_a_run_goes_on_only_with_the_same_pipelines_inside(start, tmp_path, folder):
    (tmp_path / "outer.yaml").write_text(OUTER)
    (tmp_path / "inner.yaml").write_text(INNER)
    options = {"pipeline": tmp_path / "outer.yaml", "out": tmp_path / "out"}
    assert len(list(start(folder, **options))) == 3
    assert list(start(folder, resume=True, **options)) == []
    (tmp_path / "inner.yaml").write_text(INNER.replace("90", "180"))
    with pytest.raises(UsageError):
        list(start(folder, resume=True, **options))

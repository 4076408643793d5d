from __future__ import annotations

import errno
import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sam2_blocks import Item, ItemResult
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import ErrorRecord
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import write_atomically
from sam2_blocks.files.claims import JOURNAL_FILE
from sam2_blocks.runs.sinks import folder as folder_module
from sam2_blocks.runs.sinks.folder import FolderSink
from sam2_blocks.testing import sample_detections, sample_image


@pytest.fixture
def open_sink(plugins, tmp_path):
    """``open_sink(output)``: a folder for a picture's boxes, and the picture itself."""

    def make(output="boxes", *, folder=tmp_path / "out", **asked):
        document = {
            "pipeline_version": 1,
            "inputs": {
                "image": {"kind": "image"},
                "found": {"kind": "object_detection_prediction"},
            },
            "steps": {
                "filter": {"use": "detections/filter@v1", "with": {"detections": "$inputs.found"}},
                "embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}},
            },
            "outputs": {
                output: "$steps.filter.detections",
                "picture": "$inputs.image",
                "code": "$steps.embed.embedding",
            },
        }
        return FolderSink(folder, RunRequest(plugins.load_pipeline(document), plugins, **asked))

    return make


def source_of(*names, alone=False):
    return SimpleNamespace(
        alone=alone,
        identity="these",
        items=lambda: [SimpleNamespace(id=name, stamp="s") for name in names],
    )


def result_of(name):
    return ItemResult(name, {"boxes": sample_detections(), "picture": sample_image()}, ())


@pytest.mark.parametrize(("alone", "prefix"), [(False, "deep/a.png/"), (True, "")])
def test_each_output_is_a_file_of_its_kind(open_sink, tmp_path, alone, prefix):
    sink = open_sink()
    sink.begin(source_of("deep/a.png", alone=alone))
    sink.write(result_of("deep/a.png"))
    sink.end(complete=True)
    assert sink.failed == []
    rows = json.loads((tmp_path / "out" / f"{prefix}boxes.json").read_text())["detections"]
    assert [row["class_name"] for row in rows] == ["face", "object"]
    assert (tmp_path / "out" / f"{prefix}picture.png").exists()


def test_what_has_no_file_format_is_named(open_sink):
    assert open_sink().notes == ["output 'code' has no file format and is not written"]


def test_errors_are_in_the_order_of_the_items_whenever_they_came(open_sink, tmp_path):
    sink = open_sink()
    sink.begin(source_of("a", "b", "c"))
    for place, name in [(2, "c"), (0, "a"), (1, "b")]:  # those held back come last
        error = ErrorRecord(name, "inputs", "", "cannot be read", "ImageError")
        item = Item(name, {}, place=place)
        sink.write(ItemResult(name, {}, (error,), item=item))
    sink.end(complete=True)
    rows = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert [row["item"] for row in rows] == ["a", "b", "c"]


def test_an_id_never_leads_out_of_the_folder(open_sink, tmp_path):
    sink = open_sink()
    sink.begin(source_of("../../a.png"))
    sink.write(result_of("../../a.png"))
    sink.end(complete=True)
    assert (tmp_path / "out" / "a.png" / "boxes.json").exists()


def test_results_may_be_called_by_the_stem(open_sink, tmp_path):
    sink = open_sink(names="stem")
    sink.begin(source_of("deep/a.png"))
    sink.write(result_of("deep/a.png"))
    sink.end(complete=True)
    assert (tmp_path / "out" / "deep" / "a" / "boxes.json").exists()


def test_stems_must_differ(open_sink):
    with pytest.raises(UsageError, match=r"'a\.png' and 'a\.jpg' would both be in the folder 'a'"):
        open_sink(names="stem").begin(source_of("a.png", "a.jpg"))


@pytest.mark.parametrize(
    "names",
    [
        ("../set/a.png", "set/a.png"),
        ("set/a.png", "../set/a.png"),
        ("/set/a.png", "../set/a.png"),
        ("set//a.png", "b.png", "./set/a.png"),
    ],
)
def test_no_two_items_write_into_one_folder(open_sink, tmp_path, names):
    with pytest.raises(UsageError, match=r"would both be in the folder 'set/a\.png'\. Name them"):
        open_sink().begin(source_of(*names))
    assert list((tmp_path / "out").iterdir()) == []
    sink = open_sink()
    sink.begin(source_of("a..png", ".../a.png", ".a/..b", "n" * 300, "../c.png"))
    sink.end(complete=True)


def test_the_second_item_of_a_folder_fails_where_nobody_knew_before(open_sink, tmp_path):
    sink, source = open_sink(names="stem"), source_of()
    source.identity, source.items = None, None  # which is not asked what comes
    sink.begin(source)
    sink.write_all([result_of("a.png"), result_of("b.png")])
    sink.write(ItemResult("a.jpg", {"boxes": sample_detections()[:0]}))
    sink.end(complete=True)
    [error] = sink.failed
    assert (error.item, error.step) == ("a.jpg", "outputs")
    assert "'a.png' and 'a.jpg' would both be in the folder" in error.message
    rows = json.loads((tmp_path / "out" / "a" / "boxes.json").read_text())["detections"]
    assert len(rows) == len(sample_detections()) > 0
    assert (tmp_path / "out" / "a" / "picture.png").exists()


def test_a_micro_batch_may_wait_to_be_written(open_sink, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(FolderSink, "_write", lambda *_: ([], held.wait(20) and None))
    names = [str(number) for number in range(13)]
    sink = open_sink(batch_size=12)
    sink.begin(source_of(*names))
    for name in names[:12]:
        sink.write(result_of(name))  # returns: the model goes on meanwhile
    threading.Timer(0.2, held.set).start()
    sink.write(result_of("12"))
    assert held.is_set()  # more is not held in memory
    sink.end(complete=True)


def test_a_micro_batch_is_written_as_one_item_after_the_other(open_sink, tmp_path):
    names = ["a", "b", "c"]
    results = [ItemResult(n, {"boxes": sample_detections(i)}, ()) for i, n in enumerate(names)]
    for folder, together in (("one", False), ("all", True)):
        sink = open_sink(folder=tmp_path / folder)
        sink.begin(source_of(*names))
        if together:
            sink.write_all(results)
        else:
            for result in results:
                sink.write(result)
        sink.end(complete=True)
    for name in names:
        one, other = (tmp_path / folder / name / "boxes.json" for folder in ("one", "all"))
        assert one.read_bytes() == other.read_bytes()
        assert len(json.loads(one.read_text())["detections"]) == names.index(name)


def test_one_that_cannot_be_written_fails_alone_in_its_micro_batch(open_sink, tmp_path):
    bad = sample_detections(1)
    bad.data["rle_mask"], bad.mask = ["no run lengths"], None
    sink = open_sink()
    sink.begin(source_of("a", "b", "c"))
    sink.write_all([result_of("a"), ItemResult("b", {"boxes": bad}, ()), result_of("c")])
    sink.end(complete=True)
    assert [failure.item for failure in sink.failed] == ["b"]
    assert "cannot be written" in sink.failed[0].message
    written = {path.parent.name for path in (tmp_path / "out").glob("*/boxes.json")}
    assert written == {"a", "c"}


def test_two_runs_at_once_are_refused(open_sink):
    first = open_sink()
    first.begin(source_of("a.png"))
    with pytest.raises(UsageError, match="another run is writing there"):
        open_sink().begin(source_of("a.png"))
    first.end(complete=True)


def test_no_output_is_called_like_the_file_of_errors(open_sink):
    with pytest.raises(UsageError, match=r"no output may be called 'errors', because errors\.json"):
        open_sink("errors")


def test_a_folder_that_cannot_be_made_is_named(open_sink, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to the folder '.*file/out'"):
        open_sink(folder=tmp_path / "file" / "out").begin(source_of("a.png"))


def test_pictures_may_be_small(open_sink, tmp_path):
    sink = open_sink(pictures="jpg")
    sink.begin(source_of("a.png"))
    sink.write(result_of("a.png"))
    sink.end(complete=True)
    assert (tmp_path / "out" / "a.png" / "picture.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (tmp_path / "out" / "a.png" / "boxes.json").exists()


def finished_in(folder):
    entries = map(json.loads, (folder / JOURNAL_FILE).read_text().splitlines())
    return [entry["item"] for entry in entries if entry.get("stamp")]


def test_what_was_written_beside_an_error_that_ends_the_run_is_noted(
    open_sink, tmp_path, monkeypatch
):
    def refuse_one(path, write):
        if path.parent.name == "a":
            raise PermissionError(errno.EACCES, "not for you", str(path))
        return write_atomically(path, write)

    monkeypatch.setattr(folder_module, "write_atomically", refuse_one)
    sink = open_sink(batch_size=1)
    sink.begin(source_of("a", "b", "c"))
    with pytest.raises(PermissionError, match="not for you"):
        sink.write_all([result_of(name) for name in "abc"])
    sink.end(complete=False)
    assert finished_in(tmp_path / "out") == ["b", "c"]


def test_who_does_not_want_to_wait_at_the_end_loses_nothing(open_sink, tmp_path, monkeypatch):
    sink = open_sink()
    sink.begin(source_of("a", "b"))
    sink.write(replace(result_of("a"), errors=(ErrorRecord("a", "s", "b", "m", "E"),)))
    sink.write(result_of("b"))
    shutdown = sink._writers.shutdown

    def interrupt():
        shutdown()
        raise KeyboardInterrupt

    monkeypatch.setattr(sink._writers, "shutdown", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sink.end(complete=False)
    out = tmp_path / "out"
    assert (out / "errors.json").exists()
    assert finished_in(out) == ["b"]
    following = open_sink()
    following.begin(source_of("a", "b"))  # nobody holds the folder any more
    following.end(complete=False)


@pytest.mark.parametrize("name", ["errors.json", "errors.json/a.png", "./.flying.json/b"])
def test_an_item_called_like_a_file_of_the_run_fails_alone(open_sink, tmp_path, name):
    sink = open_sink()
    sink.begin(source_of("a.png", name, "deep/errors.json"))
    for one in ("a.png", name, "deep/errors.json"):
        sink.write(result_of(one))
    sink.end(complete=True)
    rows = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert [row["item"] for row in rows] == [name]
    assert "is a file of the run itself; rename the item" in rows[0]["message"]
    assert (tmp_path / "out" / "deep" / "errors.json" / "boxes.json").is_file()

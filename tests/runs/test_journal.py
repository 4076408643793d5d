from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import unfinished_path
from sam2_blocks.files.claims import JOURNAL_FILE
from sam2_blocks.files.reading import file_stamp
from sam2_blocks.runs.journal import Journal
from tests.conftest import ROOT

COCO_FOLDER = ROOT / "examples" / "coco_folder.yaml"
KILLED = """
import os, signal
import sam2_blocks.engine.builtin as builtin
from sam2_blocks.cli import main

load = builtin.load_sam2

def deadly(*given, **options):
    executor = load(*given, **options)
    embed = executor.embed

    def kill_at_the_twelfth(images):
        if any(image.id == "012.png" for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return embed(images)

    executor.embed = kill_at_the_twelfth
    return executor

builtin.load_sam2 = deadly
main()
"""


@pytest.fixture
def stamps():
    """Three items."""
    return {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"}


@pytest.fixture
def journal(tmp_path):
    """Make the journal of a run in ``tmp_path / "out"``."""

    (tmp_path / "out").mkdir()

    def make(settings=None, resume=True, steps=(), identity="pictures", **more):
        request = RunRequest(
            SimpleNamespace(steps=steps), None, settings=settings or {}, resume=resume, **more
        )
        return Journal(tmp_path / "out", request, identity)

    return make


def finish(journal, stamps, *names, shared=()):
    """Let a run finish some of the items, each with one output."""
    journal.plan(stamps)
    journal.start()
    journal.add_shared(dict.fromkeys(shared, "ExportCoco"))
    for name in names:
        output = journal._folder / name / "mask.png"
        output.parent.mkdir(exist_ok=True)
        output.write_text("mask")
        journal.add(name, stamps[name], [output])
    journal.close()


def left(journal, stamps):
    """Items that are to be done."""
    journal.plan(stamps)
    return [name for name in stamps if name not in journal.kept]


def test_without_an_earlier_run_everything_remains(journal, stamps):
    assert left(journal(), stamps) == list(stamps)


def test_what_is_finished_is_kept_with_its_files(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg", "b.jpg")
    again = journal()
    assert left(again, stamps) == ["c.jpg"]
    assert again.kept == {
        name: [tmp_path / "out" / name / "mask.png"] for name in ("a.jpg", "b.jpg")
    }


def test_an_item_that_was_taken_away_is_not_kept_but_its_files_are_known(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg", "b.jpg")
    del stamps["a.jpg"]
    again = journal()
    assert left(again, stamps) == ["c.jpg"]
    assert list(again.kept) == ["b.jpg"]
    assert again.gone(stamps) == [tmp_path / "out" / "a.jpg" / "mask.png"]
    again.start()
    again.forget(stamps)
    again.close()
    assert journal().gone(stamps) == []


def test_a_third_run_knows_what_the_first_and_the_second_finished(journal, stamps):
    finish(journal(), stamps, "a.jpg")
    finish(journal(), stamps, "b.jpg")
    assert left(journal(), stamps) == ["c.jpg"]


def test_a_changed_item_remains(journal, stamps):
    finish(journal(), stamps, "a.jpg", "b.jpg")
    assert left(journal(), {**stamps, "a.jpg": "4"}) == ["a.jpg", "c.jpg"]


def test_what_nobody_can_tell_the_state_of_remains(journal, stamps):
    stamps["a.jpg"] = ""
    finish(journal(), stamps, "a.jpg", "b.jpg")
    assert left(journal(), stamps) == ["a.jpg", "c.jpg"]


def test_an_item_whose_output_is_gone_remains(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg", "b.jpg")
    (tmp_path / "out" / "b.jpg" / "mask.png").unlink()
    assert left(journal(), stamps) == ["b.jpg", "c.jpg"]


def test_a_torn_line_is_not_a_finished_item(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg", "b.jpg")
    file = tmp_path / "out" / JOURNAL_FILE
    file.write_text(file.read_text()[:-20])
    assert left(journal(), stamps) == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "line", ["3", "[]", '{"item": 3}', '{"item": "b.jpg", "files": null}', "{"]
)
def test_a_line_that_means_nothing_is_skipped(journal, stamps, tmp_path, line):
    finish(journal(), stamps, "a.jpg")
    with (tmp_path / "out" / JOURNAL_FILE).open("a") as file:
        file.write(f"{line}\n")
    assert left(journal(), stamps) == ["b.jpg", "c.jpg"]
    (tmp_path / "out" / JOURNAL_FILE).write_text(f"{line}\n")
    assert left(journal(), stamps) == list(stamps)


def test_files_outside_the_folder_are_not_ours(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg")
    with (tmp_path / "out" / JOURNAL_FILE).open("a") as file:
        file.write('{"item": "b.jpg", "stamp": "1", "files": ["../victim.txt"]}\n')
        file.write('{"shared": {"../victim.txt": "ExportCoco"}}\n')
    assert journal().earlier_files("b.jpg") == []
    assert journal().shared == {}


def test_names_of_any_bytes_are_kept(journal, stamps):
    name = "\udcff\u2028.jpg"
    stamps[name] = "4"
    finish(journal(), stamps, name)
    assert name not in left(journal(), stamps)


def test_a_new_run_forgets_the_old_one(journal, stamps):
    finish(journal(), stamps, "a.jpg")
    finish(journal(resume=False), {})
    assert left(journal(), stamps) == list(stamps)


def test_other_settings_are_refused(journal, stamps):
    finish(journal({"model": "nano"}), stamps, "a.jpg")
    assert left(journal({"model": "nano"}), stamps) == ["b.jpg", "c.jpg"]
    with pytest.raises(UsageError, match="cannot --resume, because settings changed since the run"):
        journal({"model": "hiera_tiny"})


def test_other_names_are_refused(journal, stamps):
    finish(journal(names="id"), stamps, "a.jpg")
    with pytest.raises(UsageError, match="because names changed"):
        journal(names="stem")


def test_another_pipeline_is_refused(journal, stamps):
    finish(journal(digest="1"), stamps, "a.jpg")
    with pytest.raises(UsageError, match="because pipeline changed"):
        journal(digest="2")


def test_other_inputs_are_refused_also_by_a_new_run(journal, stamps):
    finish(journal(), stamps, "a.jpg")
    with pytest.raises(UsageError, match="because input changed"):
        journal(identity="elsewhere")
    with pytest.raises(UsageError, match="results of another input, 'pictures', and two runs are"):
        journal(identity="elsewhere", resume=False)


def test_the_files_of_another_pipeline_are_not_ours(journal, stamps, tmp_path):
    finish(journal(digest="1"), stamps, "a.jpg", shared=[tmp_path / "out" / "coco.json"])
    other = journal(resume=False, digest="2")
    assert (other.earlier_files("a.jpg"), other.shared) == ([], {})


def test_a_file_of_all_items_that_is_gone_is_named(journal, stamps, tmp_path):
    shared = tmp_path / "out" / "coco.json"
    finish(journal(), stamps, "a.jpg", shared=[shared])
    with pytest.raises(UsageError, match=r"coco\.json: is gone, and with it what the earlier run"):
        journal().plan(stamps)
    unfinished_path(shared).write_text("")
    assert left(journal(), stamps) == ["b.jpg", "c.jpg"]


def test_a_new_run_knows_the_files_of_the_old_one(journal, stamps, tmp_path):
    finish(journal(), stamps, "a.jpg")
    finish(journal(resume=False), {})
    assert journal().earlier_files("a.jpg") == [tmp_path / "out" / "a.jpg" / "mask.png"]


def test_a_block_that_would_forget_what_it_wrote_is_refused(journal, stamps):
    def step(**about):
        return SimpleNamespace(id="save", manifest=SimpleNamespace(id="my/save@v1", **about))

    finish(journal(), stamps, "a.jpg")
    for about in ({"file_access": "write", "resumable": True}, {"file_access": "none"}):
        assert left(journal(steps=[step(**about)]), stamps) == ["b.jpg", "c.jpg"]
    with pytest.raises(UsageError, match="'save' writes files, and the manifest of my/save@v1"):
        journal(steps=[step(file_access="write", resumable=False)])


def test_a_killed_run_goes_on_to_the_same_coco_file(tmp_path):
    folder, boxes = tmp_path / "pictures", tmp_path / "boxes.json"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    names = [f"{number:03}.png" for number in range(24)]
    for number, name in enumerate(names):
        Pil.fromarray(np.roll(noise, number, 0)).save(folder / name)
    coco = {
        "images": [
            {"id": i, "file_name": n, "height": 60, "width": 80} for i, n in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "bbox": [5, 5, 40, 30]}
            for i in range(len(names))
        ],
        "categories": [{"id": 3, "name": "thing"}],
    }
    boxes.write_text(json.dumps(coco))

    def run(target, *more, program=("-m", "sam2_blocks")):
        return subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", *program, "run", COCO_FOLDER),
                *("-i", folder, "-s", f"annotations={boxes}", "-o", target, "--batch-size", "1"),
                *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = run(killed, program=("-c", KILLED))
    text, _ = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, text
    assert 5 <= len(list(killed.glob("*/predictions.json"))) <= 12
    assert not (killed / "masks.json").exists()
    process = run(killed, "--resume")
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert "of 24 were done before" in text
    text, _ = run(whole).communicate(timeout=600)
    assert "24 of 24 done" in text
    assert (killed / "masks.json").read_text() == (whole / "masks.json").read_text()
    assert sorted(os.listdir(killed)) == sorted(os.listdir(whole))


@pytest.mark.parametrize("change", ["grows", "goes", "comes"])
def test_what_an_item_was_made_from_counts(journal, stamps, tmp_path, change):
    boxes = tmp_path / "a.json"
    if change != "comes":
        boxes.write_text("[]")
    one = journal()
    one.plan(stamps)
    one.start()
    reads = {str(boxes): file_stamp(boxes)}
    for name in ("a.jpg", "b.jpg"):
        one.add(name, stamps[name], [], reads=reads if name == "a.jpg" else {})
    one.close()
    assert left(journal(), stamps) == ["c.jpg"]
    if change == "goes":
        boxes.unlink()
    else:
        boxes.write_text("[1, 2]")
    assert left(journal(), stamps) == ["a.jpg", "c.jpg"]


def test_a_file_that_was_begun_belongs_to_its_item(journal, stamps, tmp_path):
    one, label = journal(), tmp_path / "out" / "labels" / "a.txt"
    one.plan(stamps)
    one.start()
    one.begin_file("a.jpg", label)
    one.close()
    del stamps["a.jpg"]
    again = journal()
    again.plan(stamps)
    assert again.gone(stamps) == [label]

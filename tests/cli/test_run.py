from __future__ import annotations

import json
import os
import shutil

import pytest
from filelock import FileLock
from PIL import Image as Pil

from sam2_blocks.cli import options
from sam2_blocks.files.claims import JOURNAL_FILE, LOCK_FILE
from tests.cli.conftest import COFFEE, QUICKSTART, add_picture
from tests.conftest import PICTURES, ROOT


def test_run_writes_masks_and_picture_and_prints_a_table(call, tmp_path):
    code, out, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    assert code == 0, err
    assert "saucer" in out
    assert "1 of 1 done" in out
    assert sorted(os.listdir(tmp_path)) == ["overlay.png", "predictions.json"]
    with Pil.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size == (600, 400)
    rows = json.loads((tmp_path / "predictions.json").read_text())["detections"]
    assert [row["class_name"] for row in rows] == ["saucer", "cup", "coffee", "spoon"]
    assert rows[1]["segmentation"]["size"] == [400, 600]
    assert rows[1]["polygons_iou"] == 1.0
    assert rows[1]["area_px"] == 239 * 230


def test_its_output_can_be_loaded_as_boxes(call, tmp_path):
    assert call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)[0] == 0
    from sam2_blocks.formats.json_boxes import load_json

    assert len(load_json(tmp_path / "predictions.json")) == 4


def test_a_broken_picture_is_reported_and_the_others_finish(call, folder, tmp_path):
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == options.ITEMS_FAILED
    assert "2 of 3 done" in out
    assert "failed: broken.jpg: input 'image':" in err
    assert (tmp_path / "out" / "a.jpg" / "overlay.png").exists()
    assert (tmp_path / "out" / "deep" / "b.jpg" / "predictions.json").exists()
    [record] = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert (record["item"], record["step"], record["cause"]) == (
        "broken.jpg",
        "inputs",
        "ImageError",
    )


def test_old_error_records_go_away(call, tmp_path):
    (tmp_path / "errors.json").write_text("[]")
    call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    assert not (tmp_path / "errors.json").exists()


def test_old_outputs_of_an_item_that_fails_go_away(call, folder, tmp_path):
    target = tmp_path / "out"
    call("run", QUICKSTART, "-i", folder, "-o", target)
    (target / "a.jpg" / "notes.json").write_text("mine")
    (folder / "a.json").unlink()
    (folder / "deep" / "b.jpg").write_bytes(b"broken by now")
    assert call("run", QUICKSTART, "-i", folder, "-o", target)[0] == options.ITEMS_FAILED
    left = sorted(path.name for path in target.rglob("*.*") if path.is_file())
    assert left == [JOURNAL_FILE, "errors.json", "notes.json"]


def test_an_old_output_of_a_single_picture_goes_away(call, folder, tmp_path):
    target = tmp_path / "out"
    call("run", QUICKSTART, "-i", folder / "a.jpg", "-o", target)
    assert sorted(os.listdir(target)) == ["overlay.png", "predictions.json"]
    (folder / "a.json").unlink()
    call("run", QUICKSTART, "-i", folder / "a.jpg", "-o", target)
    assert os.listdir(target) == ["errors.json"]


def test_a_glob_takes_several_pictures(call, folder, tmp_path):
    code, out, _ = call("run", QUICKSTART, "-i", f"{folder}/**/?.jpg", "-o", tmp_path / "out")
    assert code == 0
    assert "2 of 2 done" in out


def test_a_run_that_is_refused_leaves_the_report_of_another_one(call, folder, tmp_path):
    out = tmp_path / "out"
    call("run", QUICKSTART, "-i", folder, "-o", out, "--report")
    before = (out / "index.html").read_bytes()
    code, _, err = call("run", QUICKSTART, "-i", folder / "deep", "-o", out, "--report")
    assert code == options.WRONG_INPUT
    assert "holds results of another input" in err
    assert (out / "index.html").read_bytes() == before


def test_a_report_shows_all_items_and_is_written_when_some_failed(call, folder, tmp_path):
    code, out, _ = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out", "--report")
    assert code == options.ITEMS_FAILED
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"report: {tmp_path / 'out' / 'index.html'}" in out.replace("\n", "")
    assert "2 of 3 done, 1 failed" in page
    assert page.count("<img") == 2


def test_a_folder_of_coco_boxes_becomes_coco_masks(call, tmp_path):
    pipeline = ROOT / "examples" / "coco_folder.yaml"
    boxes = ROOT / "examples" / "coco" / "boxes.json"
    code, _, err = call(
        "run", pipeline, "-i", PICTURES, "-s", f"annotations={boxes}", "-o", tmp_path
    )
    assert code == 0, err
    coco = json.loads((tmp_path / "masks.json").read_text())
    assert len(coco["images"]) == 4
    assert [row["area"] for row in coco["annotations"]] == [330 * 362, 239 * 230, 84 * 94]


def test_resume_does_what_is_left(call, folder, tmp_path):
    arguments = ("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert call(*arguments)[0] == options.ITEMS_FAILED
    before = (tmp_path / "out" / "a.jpg" / "overlay.png").stat().st_mtime_ns
    (folder / "broken.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes())
    (folder / "broken.json").write_bytes((PICTURES / "coffee.json").read_bytes())
    code, out, err = call(*arguments, "--resume")
    assert code == 0, err
    assert "2 of 3 were done before" in out
    assert "1 of 1 done" in out
    assert (tmp_path / "out" / "a.jpg" / "overlay.png").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "broken.jpg" / "overlay.png").exists()
    assert not (tmp_path / "out" / "errors.json").exists()
    code, out, _ = call(*arguments, "--resume")
    assert (code, "nothing is left to do" in out) == (0, True)


def test_resume_keeps_earlier_pictures_in_the_coco_file(call, tmp_path):
    boxes = ROOT / "examples" / "coco" / "boxes.json"
    some = tmp_path / "pictures"
    some.mkdir()
    pipeline = ROOT / "examples" / "coco_folder.yaml"
    arguments = ("run", pipeline, "-i", some, "-s", f"annotations={boxes}", "-o")
    for name in ("astronaut.jpg", "chelsea.jpg", "coffee.jpg"):
        (some / name).write_bytes((PICTURES / name).read_bytes())
        code, _, err = call(*arguments, tmp_path / "grown", "--resume")
        assert code == 0, err
    call(*arguments, tmp_path / "whole")
    grown, whole = (tmp_path / name / "masks.json" for name in ("grown", "whole"))
    assert json.loads(grown.read_text()) == json.loads(whole.read_text())


def test_resume_refuses_a_file_that_is_not_coco(call, folder, tmp_path):
    boxes = ROOT / "examples" / "coco" / "boxes.json"
    pipeline = ROOT / "examples" / "coco_folder.yaml"
    arguments = ("run", pipeline, "-s", f"annotations={boxes}", "-o", tmp_path)
    assert call(*arguments, "-i", PICTURES)[0] == 0
    (tmp_path / "masks.json").write_text("{}")
    (tmp_path / "coffee.jpg" / "predictions.json").unlink()
    code, _, err = call(*arguments, "-i", PICTURES, "--resume")
    assert code == options.ITEMS_FAILED
    assert "masks.json: cannot be continued" in err


def test_what_blocks_wrote_of_a_picture_that_fails_goes_away(exporting, folder):
    exporting.run()
    assert (exporting.labels / "deep" / "b.txt").exists()
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]
    (folder / "deep" / "b.jpg").write_bytes(b"broken by now")
    assert exporting.run("--resume")[0] == options.ITEMS_FAILED
    assert not (exporting.labels / "deep" / "b.txt").exists()
    assert (exporting.labels / "a.txt").exists()
    assert exporting.named() == ["a.jpg"]
    (folder / "a.jpg").write_bytes(b"broken by now")
    assert exporting.run()[0] == options.ITEMS_FAILED
    left = sorted(os.listdir(exporting.target))
    assert left == [JOURNAL_FILE, "errors.json"]


def test_another_pipeline_leaves_the_files_of_the_first_alone(exporting, call, folder):
    exporting.run()
    assert call("run", QUICKSTART, "-i", folder, "-o", exporting.target)[0] == 0
    assert (exporting.labels / "a.txt").exists()
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]


def test_a_picture_that_fails_does_not_take_the_file_of_another_with_it(exporting, folder):
    exporting.run()
    (folder / "a.jpg").write_bytes(b"broken by now")
    add_picture(folder / "a.png")
    exporting.run()
    assert (exporting.labels / "a.txt").exists()


def test_the_file_of_a_finished_picture_is_not_taken(exporting, folder):
    exporting.run()
    before = (exporting.labels / "a.txt").stat().st_mtime_ns
    shutil.copy(folder / "a.jpg", folder / "a.png")  # whose boxes are those of the other
    code, _, err = exporting.run("--resume")
    assert code == options.ITEMS_FAILED
    assert "is the file of 'a.jpg', which an earlier run finished" in err
    assert (exporting.labels / "a.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_runs_on_other_inputs_are_not_mixed(exporting, folder, tmp_path, more):
    exporting.run(source=folder / "deep")
    other = tmp_path / "other"
    other.mkdir()
    add_picture(other / "c.jpg")
    before = sorted(exporting.target.rglob("*"))
    code, _, err = exporting.run(*more, source=other)
    assert code == options.WRONG_INPUT
    assert ("input changed" if more else "holds results of another input") in err
    assert sorted(exporting.target.rglob("*")) == before


def test_pictures_alone_are_not_mixed_where_blocks_write_files(exporting, call, folder, tmp_path):
    assert exporting.run(source=folder / "a.jpg")[0] == 0
    assert exporting.run(source=folder / "a.jpg")[0] == 0
    code, _, err = exporting.run(source=folder / "deep" / "b.jpg")
    assert code == options.WRONG_INPUT
    assert "two runs are not mixed. Choose another --out" in err
    for name in ("a.jpg", "deep/b.jpg"):  # no file but those that are replaced
        assert call("run", QUICKSTART, "-i", folder / name, "-o", tmp_path / "one")[0] == 0
    assert sorted(os.listdir(tmp_path / "one")) == ["overlay.png", "predictions.json"]


def test_a_single_picture_is_not_resumed(exporting, folder):
    code, _, err = exporting.run("--resume", source=folder / "a.jpg")
    assert code == options.WRONG_INPUT
    assert "--resume is for folders and globs" in err


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_what_belongs_to_pictures_that_are_gone_is_removed(exporting, folder, more):
    exporting.run()
    (folder / "deep" / "b.jpg").unlink()
    assert exporting.run(*more)[0] == 0
    left = {p.relative_to(exporting.target).as_posix() for p in exporting.target.rglob("*")}
    assert left == {
        *("a.jpg", "a.jpg/overlay.png", "a.jpg/predictions.json", "coco.json"),
        *("data.yaml", "labels", "labels/a.txt", JOURNAL_FILE),
    }
    assert exporting.named() == ["a.jpg"]


def test_a_resumed_run_numbers_categories_and_pictures_like_a_new_one(exporting, folder, tmp_path):
    def boxes(name, *classes):
        rows = [{"box_xyxy": [9, 9, 99, 99], "class_name": n, "class_id": 0} for n in classes]
        (folder / name).write_text(json.dumps({"detections": rows}))

    boxes("a.json", "dog", "zebra")
    boxes("deep/b.json", "zebra")
    exporting.run()
    add_picture(folder / "0.jpg")
    boxes("0.json", "ant")
    assert exporting.run("--resume")[0] == 0
    resumed = json.loads((exporting.target / "coco.json").read_text())
    exporting.run()
    assert json.loads((exporting.target / "coco.json").read_text()) == resumed
    names = {row["name"]: row["id"] for row in resumed["categories"]}
    assert names == {"ant": 1, "dog": 2, "zebra": 3}
    assert exporting.named() == ["0.jpg", "a.jpg", "deep/b.jpg"]


def test_a_coco_file_that_is_gone_is_missed_also_when_nothing_is_left(exporting):
    for more in ((), ("--resume",), ("--resume",)):
        assert exporting.run(*more)[0] == 0
    (exporting.target / "coco.json").unlink()
    code, _, err = exporting.run("--resume")
    assert code == options.WRONG_INPUT
    assert "coco.json: is gone, and with it what the earlier run found" in err


def test_an_interruption_while_the_coco_file_is_written_loses_nothing(exporting, monkeypatch):
    def interrupt(path, write):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sam2_blocks.formats.coco.write_atomically", interrupt)
        assert exporting.run()[0] == options.INTERRUPTED
    assert not (exporting.target / "coco.json").exists()
    code, out, _ = exporting.run("--resume")
    assert (code, "nothing is left to do" in out) == (0, True)
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]


def test_a_picture_that_failed_has_no_right_to_the_file_of_a_finished_one(exporting, folder):
    exporting.run()
    (folder / "a.jpg").write_bytes(b"broken by now")
    add_picture(folder / "a.png")
    for _ in range(3):
        assert exporting.run("--resume")[0] == options.ITEMS_FAILED
        assert (exporting.labels / "a.txt").exists()


def test_what_is_no_coco_file_any_more_is_named_at_the_end_too(exporting):
    exporting.run()
    (exporting.target / "coco.json").write_text("{}")
    code, _, err = exporting.run("--resume")
    assert code == options.WRONG_INPUT
    assert "coco.json: cannot be continued" in err


def test_two_runs_at_once_are_refused(exporting):
    exporting.run()
    journal = (exporting.target / JOURNAL_FILE).read_text()
    with FileLock(exporting.target / LOCK_FILE):
        code, _, err = exporting.run()
    assert code == options.WRONG_INPUT
    assert "another run is writing there" in err
    assert (exporting.target / JOURNAL_FILE).read_text() == journal


def test_files_of_a_picture_that_failed_later_are_known_too(exporting, folder, monkeypatch):
    from sam2_blocks.blocks.draw_masks import DrawMasks

    def refuse(self, items):
        raise ValueError("no ink")

    with monkeypatch.context() as patched:
        patched.setattr(DrawMasks, "run", refuse)
        assert exporting.run()[0] == options.ITEMS_FAILED
    assert (exporting.labels / "a.txt").exists()
    (folder / "a.jpg").write_bytes(b"broken by now")
    exporting.run("--resume")
    assert not (exporting.labels / "a.txt").exists()


def test_a_file_may_be_reached_in_two_ways(call, folder, tmp_path):
    (folder / "broken.jpg").unlink()
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    wires = "image: $inputs.image, predictions: $steps.segment.predictions"
    step = f"  coco: {{use: export/coco@v1, with: {{{wires}, path: x/../real/coco.json}}}}\n"
    (tmp_path / "p.yaml").write_text(text.replace("outputs:\n", f"{step}outputs:\n"))
    arguments = ("run", tmp_path / "p.yaml", "-i", folder, "-o", tmp_path / "out")
    assert call(*arguments)[0] == 0
    add_picture(folder / "z.jpg")
    assert call(*arguments, "--resume")[0] == 0
    coco = json.loads((tmp_path / "out" / "real" / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "deep/b.jpg", "z.jpg"]


@pytest.mark.parametrize("path", ["errors.json", ".finished.jsonl", "predictions.json"])
def test_a_block_does_not_write_the_files_of_the_run(call, tmp_path, path):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    wires = "image: $inputs.image, predictions: $steps.segment.predictions"
    step = f"  coco: {{use: export/coco@v1, with: {{{wires}, path: {path}}}}}\n"
    (tmp_path / "p.yaml").write_text(text.replace("outputs:\n", f"{step}outputs:\n"))
    code, _, err = call("run", tmp_path / "p.yaml", "-i", COFFEE, "-o", tmp_path / "out")
    assert code == options.ITEMS_FAILED
    assert "of the run itself" in err or "another step or output writes" in err
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["detections"]
    assert len(rows) == 4


def test_a_glob_that_finds_more_pictures_names_the_others_as_before(exporting, folder):
    glob = f"{folder}/*/*.jpg"
    exporting.run(source=glob)
    (folder / "more").mkdir()
    add_picture(folder / "more" / "b.jpg")
    code, out, err = exporting.run("--resume", source=glob)
    assert (code, "1 of 2 were done before" in out) == (0, True), err
    assert exporting.named() == ["deep/b.jpg", "more/b.jpg"]


def test_an_output_may_not_have_the_name_of_the_errors(call, tmp_path):
    pipeline = tmp_path / "p.yaml"
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    pipeline.write_text(text.replace("  predictions: $steps", "  errors: $steps"))
    code, _, err = call("run", pipeline, "-i", COFFEE, "-o", tmp_path / "out")
    assert code == options.WRONG_INPUT
    assert "no output may be called 'errors'" in err


def test_a_trace_is_written(call, tmp_path):
    call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path, "--trace", tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = [event["name"] for event in events if event.get("cat") == "step"]
    assert steps == ["boxes", "segment", "draw"]
    assert {"decode", "write"} <= {event["name"] for event in events if event["cat"] == "stage"}


def test_a_picture_over_the_limit_is_refused(call, tmp_path):
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path, "--max-pixels", 1000)
    assert code == options.ITEMS_FAILED
    assert "raise the limit with --max-pixels" in err


def test_inputs_add_up_and_keep_names_apart(call, folder, tmp_path):
    (folder / "deep" / "a.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes())
    (folder / "deep" / "a.json").write_bytes((PICTURES / "coffee.json").read_bytes())
    inputs = ("-i", folder / "a.jpg", "-i", folder / "deep", "-i", folder / "deep" / "a.jpg")
    code, out, err = call("run", QUICKSTART, *inputs, "-o", tmp_path / "out")
    assert (code, "3 of 3 done" in out) == (0, True), err
    found = sorted(path.parent for path in (tmp_path / "out").rglob("overlay.png"))
    names = [path.relative_to(tmp_path / "out").as_posix() for path in found]
    assert names == ["a.jpg", "deep/a.jpg", "deep/b.jpg"]


def test_what_a_shell_made_of_a_pattern_gets_a_hint(call, folder, tmp_path):
    names = [folder / "a.jpg", folder / "deep" / "b.jpg", folder / "broken.jpg"]
    code, _, err = call("run", QUICKSTART, "--input", *names, "-o", tmp_path / "out")
    assert code == options.WRONG_INPUT
    assert "quote it (--input 'photos/*.jpg')" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [("all.npy", "is an array"), ("t.tsv", "is a table, not")],
)
def test_a_file_of_another_sort_gets_a_sentence(call, tmp_path, name, message):
    (tmp_path / name).write_text("a.jpg")
    code, _, err = call("run", QUICKSTART, "-i", tmp_path / name, "-o", tmp_path / "out")
    assert code == options.WRONG_INPUT
    assert message in err
    assert "--input takes a picture, a folder" in err


def test_stems_name_results_where_they_differ(call, folder, tmp_path):
    (folder / "broken.jpg").unlink()
    arguments = ("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out", "--names", "stem")
    assert call(*arguments)[0] == 0
    assert (tmp_path / "out" / "a" / "overlay.png").exists()
    assert (tmp_path / "out" / "deep" / "b" / "overlay.png").exists()
    (folder / "a.png").write_bytes((folder / "a.jpg").read_bytes())
    code, _, err = call(*arguments)
    assert code == options.WRONG_INPUT
    assert "'a.jpg' and 'a.png' would both be in the folder 'a'" in err


def test_quiet_prints_what_is_wrong_only(call, folder, tmp_path):
    (folder / "notes.txt").write_text("")
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out", "--quiet")
    assert (code, out) == (options.ITEMS_FAILED, "")
    assert [line.split(":")[0] for line in err.splitlines()] == ["failed"]
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert "note: left out: 3 not named like a picture" in err
    assert "2 of 3 done" in out


def test_model_and_device_go_where_a_pipeline_has_such_inputs(call, tmp_path):
    arguments = ("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    code, _, err = call(*arguments, "--model", "hiera_tiny")
    assert code == 0
    assert err.count("loading hiera_tiny") == 1
    code, _, err = call(*arguments, "--device", "cpu")
    assert code == options.WRONG_INPUT
    assert "has no input 'device'. Add one" in err


def test_results_inside_the_input_folder_are_not_inputs(call, folder):
    (folder / "broken.jpg").unlink()
    for _ in range(2):
        code, out, _ = call("run", QUICKSTART, "-i", folder, "-o", folder / "out")
        assert code == 0
        assert "2 of 2 done" in out


def test_an_input_that_ends_half_way_keeps_what_came_before(call, folder, tmp_path):
    table, out = tmp_path / "rows.csv", tmp_path / "out"
    rows = [f"{number},pictures/a.jpg\n" for number in range(260)]
    table.write_text("".join(["id,image\n", *rows, '"b"b,pictures/a.jpg\n']))
    code, _, err = call("run", QUICKSTART, "-i", table, "-o", out, "--format", "parquet", "-q")
    assert code == options.STOPPED
    assert "rows.csv, line 262: is no CSV table" in err
    assert f"260 before it are in {out}; once that is mended, --resume goes on." in err

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image as Pil

from sam2_blocks.cli import app as cli
from sam2_blocks.files import atomic as files
from sam2_blocks.files.claims import JOURNAL_FILE, LOCK_FILE
from sam2_blocks.testing import FakeExecutor
from tests.conftest import PICTURES, ROOT

QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
COFFEE = str(PICTURES / "coffee.jpg")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the program in this process with the fake executor: ``(exit code, stdout, stderr)``."""
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setattr("sam2_blocks.engine.builtin.load_sam2", FakeExecutor)
    monkeypatch.setattr(cli.out, "width", 120)
    monkeypatch.setattr("warnings.showwarning", None)  # main() replaces it
    monkeypatch.setattr(cli.Pil, "MAX_IMAGE_PIXELS", cli.Pil.MAX_IMAGE_PIXELS)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sam2-blocks", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder with two good pictures, one of them deeper, and one broken one."""
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg"):
        (pictures / name).write_bytes((PICTURES / "coffee.jpg").read_bytes())
        json_name = (pictures / name).with_suffix(".json")
        json_name.write_bytes((PICTURES / "coffee.json").read_bytes())
    (pictures / "broken.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes()[:5000])
    return pictures


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
    from sam2_blocks.formats.rows import load_json

    assert len(load_json(tmp_path / "predictions.json")) == 4


def test_a_broken_picture_is_reported_and_the_others_finish(call, folder, tmp_path):
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == cli.ITEMS_FAILED
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
    assert call("run", QUICKSTART, "-i", folder, "-o", target)[0] == cli.ITEMS_FAILED
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


def test_a_folder_of_coco_boxes_becomes_coco_masks(call, tmp_path):
    pipeline = ROOT / "examples" / "coco_folder.yaml"
    boxes = ROOT / "examples" / "coco" / "boxes.json"
    code, _, err = call(
        "run", pipeline, "-i", PICTURES, "-s", f"annotations={boxes}", "-o", tmp_path
    )
    assert code == 0, err
    coco = json.loads((tmp_path / "masks.json").read_text())
    assert len(coco["images"]) == 3
    assert [row["area"] for row in coco["annotations"]] == [330 * 362, 239 * 230, 84 * 94]


def test_resume_does_what_is_left(call, folder, tmp_path):
    arguments = ("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert call(*arguments)[0] == cli.ITEMS_FAILED
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
    assert code == cli.ITEMS_FAILED
    assert "masks.json: cannot be continued" in err


@pytest.fixture
def exporting(call, folder, tmp_path):
    """Run a pipeline with YOLO and COCO files on the folder: (exit code, stdout, stderr)."""
    (folder / "broken.jpg").unlink()
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    wires = "{image: $inputs.image, predictions: $steps.segment.predictions}"
    steps = f"  yolo: {{use: export/yolo@v1, with: {wires}}}\n"
    steps += f"  coco: {{use: export/coco@v1, with: {wires}}}\n"
    pipeline, target = tmp_path / "p.yaml", tmp_path / "out"
    pipeline.write_text(text.replace("outputs:\n", f"{steps}outputs:\n"))

    def run(*more, source=folder):
        return call("run", pipeline, "-i", source, "-o", target, *more)

    def named():
        images = json.loads((target / "coco.json").read_text())["images"]
        return [image["file_name"] for image in images]

    return SimpleNamespace(run=run, named=named, target=target, labels=target / "labels")


def add_picture(path):
    path.write_bytes((PICTURES / "coffee.jpg").read_bytes())
    path.with_suffix(".json").write_bytes((PICTURES / "coffee.json").read_bytes())


def test_what_blocks_wrote_of_a_picture_that_fails_goes_away(exporting, folder):
    exporting.run()
    assert (exporting.labels / "deep" / "b.txt").exists()
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]
    (folder / "deep" / "b.jpg").write_bytes(b"broken by now")
    assert exporting.run("--resume")[0] == cli.ITEMS_FAILED
    assert not (exporting.labels / "deep" / "b.txt").exists()
    assert (exporting.labels / "a.txt").exists()
    assert exporting.named() == ["a.jpg"]
    (folder / "a.jpg").write_bytes(b"broken by now")
    assert exporting.run()[0] == cli.ITEMS_FAILED
    left = sorted(os.listdir(exporting.target))
    assert left == [JOURNAL_FILE, "a.jpg", "deep", "errors.json", "labels"]


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
    add_picture(folder / "a.png")
    code, _, err = exporting.run("--resume")
    assert code == cli.ITEMS_FAILED
    assert "is the file of 'a.jpg', which an earlier run finished" in err
    assert (exporting.labels / "a.txt").stat().st_mtime_ns == before


def test_a_single_picture_ends_what_a_folder_s_run_noted(exporting, folder):
    exporting.run()
    exporting.run(source=folder / "a.jpg")
    assert exporting.named() == ["a.jpg"]
    code, out, _ = exporting.run("--resume")
    assert (code, "2 of 2 done" in out) == (0, True)
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]
    code, _, err = exporting.run("--resume", source=folder / "a.jpg")
    assert code == cli.WRONG_INPUT
    assert "--resume is for folders and globs" in err


def test_a_coco_file_that_is_gone_is_missed_also_when_nothing_is_left(exporting):
    for more in ((), ("--resume",), ("--resume",)):
        assert exporting.run(*more)[0] == 0
    (exporting.target / "coco.json").unlink()
    code, _, err = exporting.run("--resume")
    assert code == cli.WRONG_INPUT
    assert "coco.json: is gone, and with it what the earlier run found" in err


def test_an_interruption_while_the_coco_file_is_written_loses_nothing(exporting, monkeypatch):
    def interrupt(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sam2_blocks.formats.coco.write_text", interrupt)
        assert exporting.run()[0] == cli.INTERRUPTED
    assert not (exporting.target / "coco.json").exists()
    code, out, _ = exporting.run("--resume")
    assert (code, "nothing is left to do" in out) == (0, True)
    assert exporting.named() == ["a.jpg", "deep/b.jpg"]


def test_a_picture_that_failed_has_no_right_to_the_file_of_a_finished_one(exporting, folder):
    exporting.run()
    (folder / "a.jpg").write_bytes(b"broken by now")
    add_picture(folder / "a.png")
    for _ in range(3):
        assert exporting.run("--resume")[0] == cli.ITEMS_FAILED
        assert (exporting.labels / "a.txt").exists()


def test_what_is_no_coco_file_any_more_is_named_at_the_end_too(exporting):
    exporting.run()
    (exporting.target / "coco.json").write_text("{}")
    code, _, err = exporting.run("--resume")
    assert code == cli.WRONG_INPUT
    assert "coco.json: cannot be continued" in err


@pytest.mark.parametrize("source", ["", "a.jpg"])
def test_two_runs_at_once_are_refused(exporting, folder, source):
    exporting.run()
    journal = (exporting.target / JOURNAL_FILE).read_text()
    with FileLock(exporting.target / LOCK_FILE):
        code, _, err = exporting.run(source=folder / source)
    assert code == cli.WRONG_INPUT
    assert "another run is writing there" in err
    assert (exporting.target / JOURNAL_FILE).read_text() == journal


def test_files_of_a_picture_that_failed_later_are_known_too(exporting, folder, monkeypatch):
    from sam2_blocks.blocks.draw_masks import DrawMasks

    def refuse(self, items):
        raise ValueError("no ink")

    with monkeypatch.context() as patched:
        patched.setattr(DrawMasks, "run", refuse)
        assert exporting.run()[0] == cli.ITEMS_FAILED
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
    assert code == cli.ITEMS_FAILED
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


def test_an_exporter_that_returns_no_path_fails_its_item(call, tmp_path, monkeypatch):
    from sam2_blocks.engine import builtin, exporters

    broken = {**exporters.BUILTIN_EXPORTERS, "image": lambda image, path: None}
    monkeypatch.setattr(builtin.exporters, "BUILTIN_EXPORTERS", broken)
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path / "out")
    assert code == cli.ITEMS_FAILED
    assert "its exporter returned None instead of its Path" in err


def test_an_output_may_not_have_the_name_of_the_errors(call, tmp_path):
    pipeline = tmp_path / "p.yaml"
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    pipeline.write_text(text.replace("  predictions: $steps", "  errors: $steps"))
    code, _, err = call("run", pipeline, "-i", COFFEE, "-o", tmp_path / "out")
    assert code == cli.WRONG_INPUT
    assert "no output may be called 'errors'" in err


def test_a_trace_is_written(call, tmp_path):
    call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path, "--trace", tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["boxes", "segment", "draw"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", QUICKSTART, "-i", "none.jpg"), 2, "none.jpg: no such file, folder or match"),
        (("run", "none.yaml", "-i", COFFEE), 2, "none.yaml: cannot be read"),
        (("run", QUICKSTART, "-i", COFFEE, "-s", "modl=x"), 2, "Did you mean 'model'?"),
        (("run", QUICKSTART, "-i", COFFEE, "-s", "model"), 2, "wants name=value"),
        (("validate", "none.yaml"), 2, "none.yaml: cannot be read"),
        (("blocks", "show", "sam2/embd@v1"), 2, "Did you mean 'sam2/embed@v1'?"),
        (("models", "verify", "hiera_tny"), 3, "there is no model 'hiera_tny'"),
        (("schema", "pipelin"), 2, "no schema of 'pipelin'. Did you mean 'pipeline'?"),
        (("run", QUICKSTART), 2, "Missing option"),
    ],
)
def test_a_mistake_is_one_readable_block(call, arguments, code, message):
    got, _, err = call(*arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(call):
    from sam2_blocks.errors import Sam2BlocksError

    with pytest.raises(Sam2BlocksError, match="no such file, folder or match"):
        call("--debug", "run", QUICKSTART, "-i", "none.jpg")


def test_all_mistakes_of_a_pipeline_are_printed(call, tmp_path):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    path = tmp_path / "p.yaml"
    path.write_text(text.replace("draw/masks@v1", "draw/mask@v1").replace("boxes.det", "boxs.det"))
    code, _, err = call("validate", path)
    assert code == 2
    assert err.count(f"{path}:") == 2


def test_a_picture_over_the_limit_is_refused(call, tmp_path):
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path, "--max-pixels", 1000)
    assert code == cli.ITEMS_FAILED
    assert "raise the limit with --max-pixels" in err


def test_a_full_disk_leaves_no_half_file(call, tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    assert code == cli.STOPPED
    assert "No space left on device" in err
    assert os.listdir(tmp_path) == []


def test_blocks_plugins_and_models_are_listed(call):
    assert "sam2/segment@v1" in call("blocks", "list")[1]
    assert any(
        row["id"] == "sam2/embed@v1" for row in json.loads(call("blocks", "list", "--json")[1])
    )
    assert "exactly one of `image`, `embedding`" in call("blocks", "show", "sam2/segment@v1")[1]
    assert json.loads(call("plugins", "list", "--json")[1])[0]["name"] == "builtin"
    assert "sam2.1/hiera_tiny" in call("models", "list")[1]
    assert call("models", "verify", "nano")[1].endswith("is the published file\n")
    assert json.loads(call("schema", "manifest")[1])["title"] == "sam2_blocks manifest"
    assert call("validate", QUICKSTART)[1].endswith("is valid: boxes → segment → draw\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_is_finished(tmp_path, how):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for number in range(200):
        Pil.fromarray(np.roll(noise, number, 0)).save(pictures / f"{number:03}.png")
        (pictures / f"{number:03}.json").write_text('{"detections": [[10, 10, 200, 200]]}')
    target = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "sam2_blocks"),
            *("run", QUICKSTART, "-i", str(pictures), "-o", str(target), "--batch-size", "1"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Whoever runs these tests in the background has Ctrl-C ignored, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(target.glob("*/overlay.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == cli.INTERRUPTED, err
    assert "interrupted after" in err
    written = list(target.rglob("*.*"))
    assert not [path for path in written if path.name.endswith(".part")]
    for path in target.glob("*/predictions.json"):
        json.loads(path.read_text())


def test_markup_in_names_is_only_text(call, tmp_path):
    (tmp_path / "[b]x.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes())
    rows = '{"detections": [{"box_xyxy": [9, 9, 99, 99], "class_name": "[/b] y"}]}'
    (tmp_path / "[b]x.json").write_text(rows)
    code, out, err = call("run", QUICKSTART, "-i", tmp_path / "[b]x.jpg", "-o", tmp_path / "out")
    assert code == 0, err
    assert "[/b] y" in out
    assert "[b]x.jpg" in out


def test_results_inside_the_input_folder_are_not_inputs(call, folder):
    (folder / "broken.jpg").unlink()
    for _ in range(2):
        code, out, _ = call("run", QUICKSTART, "-i", folder, "-o", folder / "out")
        assert code == 0
        assert "2 of 2 done" in out


def test_an_output_that_cannot_be_written_fails_its_item(call, folder, tmp_path, monkeypatch):
    from sam2_blocks.engine import builtin, exporters

    def refuse_one(image, path):
        if "deep" in str(path):
            raise TypeError("no such colour")
        return exporters.export_image(image, path)

    broken = {**exporters.BUILTIN_EXPORTERS, "image": refuse_one}
    monkeypatch.setattr(builtin.exporters, "BUILTIN_EXPORTERS", broken)
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == cli.ITEMS_FAILED
    assert "failed: deep/b.jpg: cannot be written: no such colour" in err
    assert "1 of 3 done" in out
    assert (tmp_path / "out" / "a.jpg" / "overlay.png").exists()


def test_what_could_not_be_written_is_recorded_after_an_interruption_too(
    call, folder, tmp_path, monkeypatch
):
    from sam2_blocks.engine import builtin, exporters

    def refuse(image, path):
        raise TypeError("no such colour")

    def interrupt(result, *, brief):
        raise KeyboardInterrupt

    broken = {**exporters.BUILTIN_EXPORTERS, "image": refuse}
    monkeypatch.setattr(builtin.exporters, "BUILTIN_EXPORTERS", broken)
    monkeypatch.setattr(cli, "_print_result", interrupt)
    code, _, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == cli.INTERRUPTED
    assert "failed: a.jpg: cannot be written: no such colour" in err
    [record] = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert (record["item"], record["step"]) == ("a.jpg", "outputs")


def test_a_folder_that_cannot_be_made_is_named_before_anything_runs(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path / "file")
    assert code == cli.WRONG_INPUT
    assert "cannot write to the folder" in err


def test_a_wrong_setting_is_one_error(call, tmp_path):
    points = ROOT / "examples" / "points.yaml"
    code, _, err = call("run", points, "-i", PICTURES, "-o", tmp_path, "-s", "prompts=abc")
    assert code == cli.WRONG_INPUT
    assert err.count("wants a list of mappings") == 1


def test_an_unexpected_error_is_one_block_too(call, monkeypatch):
    monkeypatch.setattr(cli, "find_pictures", lambda *_: 1 / 0)
    code, _, err = call("run", QUICKSTART, "-i", COFFEE)
    assert code == cli.STOPPED
    assert "unexpected ZeroDivisionError" in err
    assert "Traceback" not in err


def test_a_closed_stdout_does_not_stop_the_work(folder, tmp_path):
    (folder / "broken.jpg").unlink()
    command = f"{sys.executable} -W ignore -m sam2_blocks run {QUICKSTART} -i {folder}"
    shell = f"{command} -o {tmp_path / 'out'} --batch-size 1 | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out").rglob("overlay.png"))) == 2

"""What `run` says and records of results that cannot be written, also when it is interrupted."""

from __future__ import annotations

import errno
import json
import os

from sam2_blocks.cli import options
from sam2_blocks.cli import run as run_command
from sam2_blocks.engine.places import Exporter
from sam2_blocks.files import atomic as files
from tests.cli.conftest import COFFEE, QUICKSTART


def test_a_full_disk_leaves_no_half_file(call, tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path)
    assert code == options.STOPPED
    assert "No space left on device" in err
    assert "Make room and try again; run --resume goes on from what is finished." in err
    assert os.listdir(tmp_path) == []


def test_an_output_that_cannot_be_written_fails_its_item(call, folder, tmp_path, monkeypatch):
    from sam2_blocks.engine import builtin, exporters

    def refuse_one(image, file):
        if "deep" in image.id:
            raise TypeError("no such colour")
        exporters.write_image(image, file)

    broken = {**exporters.BUILTIN_EXPORTERS, "image": Exporter(".png", refuse_one)}
    monkeypatch.setattr(builtin.exporters, "BUILTIN_EXPORTERS", broken)
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == options.ITEMS_FAILED
    assert "failed: deep/b.jpg: cannot be written: no such colour" in err
    assert (tmp_path / "out" / "deep" / "b.jpg" / "predictions.json").exists()
    assert "1 of 3 done" in out
    assert (tmp_path / "out" / "a.jpg" / "overlay.png").exists()


def test_what_could_not_be_written_is_recorded_after_an_interruption_too(
    call, folder, tmp_path, monkeypatch
):
    from sam2_blocks.engine import builtin, exporters

    def refuse(image, file):
        raise TypeError("no such colour")

    def interrupt(result, failures, *, brief):
        raise KeyboardInterrupt

    broken = {**exporters.BUILTIN_EXPORTERS, "image": Exporter(".png", refuse)}
    monkeypatch.setattr(builtin.exporters, "BUILTIN_EXPORTERS", broken)
    monkeypatch.setattr(run_command, "print_result", interrupt)
    code, _, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == options.INTERRUPTED
    assert "failed: a.jpg: cannot be written: no such colour" in err
    records = json.loads((tmp_path / "out" / "errors.json").read_text())
    found = [(record["item"], record["step"]) for record in records]
    assert found[0] == ("a.jpg", "outputs")  # and so are those that came with it
    assert len(found) == len(set(found))


def test_failures_of_items_that_an_interruption_hides_are_shown_once(
    call, folder, tmp_path, monkeypatch
):
    (folder / "z.jpg").write_bytes(b"no picture")  # in the micro-batch of the first
    plain = run_command.print_result

    def interrupt_after_one(result, failures, *, brief):
        plain(result, failures, brief=brief)
        if result.id != "a.jpg":
            raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "print_result", interrupt_after_one)
    code, _, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == options.INTERRUPTED
    assert err.count("failed: z.jpg") == 1

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from PIL import Image as Pil

from sam2_blocks.cli import screen
from sam2_blocks.engine.records import ErrorRecord
from tests.cli.conftest import QUICKSTART
from tests.conftest import PICTURES, ROOT


def test_names_that_a_console_cannot_show_do_not_stop_the_work(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    names = [
        b"\xe6\x97\xa5\xe6\x9c\xac.png",
        b"a\xff.png",
        b"b\x1b[31m\n.png",
        b"c" * 251 + b".png",
    ]
    for name in names:
        path = os.path.join(os.fsencode(pictures), name)
        with open(path, "wb") as file:
            Pil.new("RGB", (60, 40)).save(file, "PNG")
    wires = "{image: $inputs.image, predictions: $steps.find.predictions}"
    (tmp_path / "p.yaml").write_text(
        "pipeline_version: 1\ninputs: {image: {kind: image}}\nsteps:\n"
        "  find: {use: sam2/segment@v1, with: {image: $inputs.image, boxes: [[5, 5, 30, 30]]}}\n"
        f"  labelme: {{use: export/labelme@v1, with: {wires}}}\n"
        f"  yolo: {{use: export/yolo@v1, with: {wires}}}\n"
        "outputs: {found: $steps.find.predictions}\n"
    )
    result = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "sam2_blocks", "run", tmp_path / "p.yaml"),
            *("-i", pictures, "-o", tmp_path / "out"),
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "SAM2_BLOCKS_PLUGINS": ""},
    )
    assert result.returncode == 0, result.stderr
    assert b"4 of 4 done" in result.stdout
    assert b"\x1b" not in result.stdout
    assert b"b\\x1b[31m\\n.png: found: 1" in result.stdout
    assert len(list((tmp_path / "out").rglob("found.json"))) == 4
    assert len(list((tmp_path / "out" / "labels").rglob("*.txt"))) == 4
    assert len(list((tmp_path / "out").rglob("*.json"))) == 8


def test_markup_in_names_is_only_text(call, tmp_path):
    (tmp_path / "[b]x.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes())
    rows = '{"detections": [{"box_xyxy": [9, 9, 99, 99], "class_name": "[/b] y"}]}'
    (tmp_path / "[b]x.json").write_text(rows)
    code, out, err = call("run", QUICKSTART, "-i", tmp_path / "[b]x.jpg", "-o", tmp_path / "out")
    assert code == 0, err
    assert "[/b] y" in out
    assert "[b]x.jpg" in out


PLAIN = """\
pipeline_version: 1
inputs: {image: {kind: image}}
steps: {small: {use: image/resize@v1, with: {image: $inputs.image, longest_px: 16}}}
outputs: {small: $steps.small.image}
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", ">&-", "2>&-", ">&- 2>&-"])
def test_a_full_or_closed_console_does_not_stop_the_work(tmp_path, streams):
    for name in (b"a.png", b"bad\xff.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Pil.new("RGB", (60, 40)).save(file, "PNG")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "p.yaml").write_text(PLAIN)
    command = f"exec {shlex.quote(sys.executable)} -m sam2_blocks run p.yaml -i . -o out --report"
    done = subprocess.run(
        ["sh", "-c", f"{command} {streams}"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "SAM2_BLOCKS_PLUGINS": "", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stderr  # a picture is broken
    assert b"Traceback" not in done.stderr
    assert len(list((tmp_path / "out").rglob("small.png"))) == 2
    assert "bad\\udcff.png" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_of_failures_that_are_alike_a_few_are_shown(capsys):
    """Wherever they have the name of their item."""
    failures = screen.Failures("out")
    for number in range(6):
        failures.show(ErrorRecord(f"{number}.jpg", "track", "x@v1", f"{number}.jpg: no", "E"))
    failures.show(ErrorRecord("9.jpg", "track", "x@v1", "9.jpg: another", "E"))
    failures.show_rest()
    assert capsys.readouterr().err.splitlines() == [
        "failed: 0.jpg, step 'track': 0.jpg: no",
        "failed: 1.jpg, step 'track': 1.jpg: no",
        "failed: 2.jpg, step 'track': 2.jpg: no",
        "failed: 9.jpg, step 'track': 9.jpg: another",
        "failed: 3 more like 0.jpg; the errors in out name them all",
    ]


def test_a_run_says_how_many_more_failed_alike(call, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_text("no picture")
    code, _, err = call("run", QUICKSTART, "-i", tmp_path, "-o", tmp_path / "out")
    assert code == 1
    assert err.count("not a picture that Pillow can read") == 3
    assert "failed: 2 more like 0.jpg; the errors in" in err
